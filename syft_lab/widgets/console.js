// The owner's console: what is hosted, who is there, what happened last.
export default widget((view, root, ask, say) => {
  root.replaceChildren(el("div", { class: `syft-item ${view.running ? "good" : ""}` },
    el("div", { class: "syft-bar" }, el("h4", {}, view.title),
      view.running ? button("Verify journal", () => ask({ do: "verify" }).then((text) => say(text, false), (error) => say(error.message))) : null),
    view.warning ? el("div", { class: "syft-notice wrong" }, view.warning) : null,
    facts(view.facts),
    view.gauges.map((gauge) => el("div", {}, el("b", {}, gauge.label), " ",
      el("span", { class: "syft-dim" }, `ε spent ${gauge.spent} · reserved ${gauge.reserved} · left ${gauge.left} of ${gauge.cap}${gauge.note ? " · " + gauge.note : ""}`),
      el("div", { class: "syft-gauge", "aria-hidden": "true" },
        el("div", { class: "spent", style: `width:${gauge.cap ? (100 * gauge.spent) / gauge.cap : 0}%` }),
        el("div", { class: "reserved", style: `width:${gauge.cap ? (100 * gauge.reserved) / gauge.cap : 0}%` })))),
    view.events.length ? el("div", { role: "log", "aria-label": "what happened last" }, facts(view.events)) : null));
}, "owner's console");

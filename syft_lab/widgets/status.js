// One line that follows a request: filed → approved → running → awaiting release → released.
const STEPS = ["filed", "approved", "running", "review", "released"];
const WORDS = { review: "awaiting release" };
const ENDS = ["denied", "withheld", "failed", "cancelled", "interrupted"];

export default widget((view, root, ask, say) => {
  const at = STEPS.indexOf(view.state);
  const ended = ENDS.includes(view.state);
  const kind = view.state === "released" ? "good" : ended ? "bad" : "busy";
  const line = el("span", { class: "syft-steps" });
  STEPS.forEach((step, i) => {
    const word = WORDS[step] ?? step;
    line.append(i ? " → " : "", el(i === at ? "b" : "span", { class: i > at ? "syft-dim" : "", "aria-current": i === at ? "step" : null }, word));
  });
  root.replaceChildren(el("div", { class: `syft-item ${kind}` },
    el("div", { class: "syft-bar" },
      el("h5", {}, `Request ${view.number} at ${view.owner}`),
      ended ? el("span", { class: "syft-badge" }, view.state) : line,
      ended || view.state === "released" ? null
        : button("Cancel", () => ask({ do: "cancel" }).then(() => say("", false), (error) => say(error.message)))),
    view.why ? el("div", {}, view.why) : null,
    el("div", { class: "syft-dim" }, view.state === "released"
      ? `${view.returns.join(", ")}: the values are here`
      : `returns ${view.returns.join(", ")}${ended ? "" : "; the notebook stays free"}`)));
}, "state of a request");

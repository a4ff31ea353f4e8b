// A pointer to a table: its public schema, its budget, and pages of its mock.
export default widget((view, root, ask, say) => {
  const place = root.querySelector(".syft-mock") ?? el("div", { class: "syft-mock" });
  const page = async (start) => {
    const found = await ask({ do: "mock", start }).catch((error) => say(error.message));
    if (!found) return;
    say("", false);
    place.replaceChildren(
      el("div", { class: "syft-scroll" }, el("table", { class: "syft-rows" }, el("caption", { class: "syft-dim" }, `Mock rows ${found.start + 1} to ${found.start + found.rows.length} of ${found.total}: made up, never private`),
        el("tr", {}, found.columns.map((c) => el("th", { scope: "col" }, c))),
        found.rows.map((row) => el("tr", {}, row.map((v) => el("td", {}, v === null ? "–" : v)))))),
      el("div", { class: "syft-acts" },
        found.start > 0 ? button("Previous", () => page(Math.max(0, found.start - view.page))) : null,
        found.start + found.rows.length < found.total ? button("Next", () => page(found.start + view.page)) : null));
  };
  const columns = view.columns.map((c) => el("tr", {}, el("th", { scope: "row" }, c.name), el("td", {}, c.kind), el("td", {}, c.values)));
  root.replaceChildren(el("div", { class: "syft-item" },
    el("div", { class: "syft-bar" }, el("h4", {}, view.title), el("span", { class: "syft-badge" }, "private")),
    facts(view.facts),
    el("div", { class: "syft-scroll" }, el("table", { class: "syft-rows" }, el("tr", {}, ["column", "type", "may be"].map((h) => el("th", { scope: "col" }, h))), columns)),
    el("div", { class: "syft-acts" }, button("Show mock rows", () => page(0))), place));
}, "pointer to a table");

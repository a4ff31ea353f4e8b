// One line that follows a request: filed → approved → running → awaiting release → released.
const STEPS = ["filed", "seen", "approved", "running", "review", "released"];
const WORDS = { review: "awaiting release" };
const ENDS = ["denied", "withheld", "failed", "cancelled", "interrupted", "expired", "left"];

const ended = (state) => ENDS.includes(state);

function talk(view, root, ask, say) {
  const said = el("input", { type: "text", "aria-label": "comment, for those who decide", placeholder: "comment, for those who decide", maxlength: 2000,
    oninput: (e) => { root.syftTyped = e.target.value; } });
  said.value = root.syftTyped ?? "";
  const send = () => ask({ do: "comment", text: said.value })
    .then(() => { root.syftTyped = said.value = ""; say("", false); }, (error) => say(error.message));
  said.addEventListener("keydown", (e) => { if (e.key === "Enter") send(); });
  return el("details", { class: "syft-talk", open: view.comments.length > 0 },
    el("summary", {}, view.comments.length ? `${view.comments.length} comment${view.comments.length > 1 ? "s" : ""}` : "Comment"),
    el("ol", { "aria-label": "comments" }, view.comments.map((c) => el("li", {}, el("b", {}, c.by), ` ${c.text}`))),
    el("div", { class: "syft-acts" }, said, button("Send", send)));
}

export default widget((view, root, ask, say) => {
  const at = STEPS.indexOf(view.state === "partly" ? "seen" : view.state);
  const before = root.syftState;
  root.syftState = view.state;
  if (before && before !== view.state && (ended(view.state) || view.state === "released"))
    toast(`${view.owner} ${view.number} ${view.state}`, `Request ${view.number} at ${view.owner}: ${view.state}${view.why ? ", " + view.why : ""}`, root);
  const kind = view.state === "released" ? "good" : ended(view.state) ? "bad" : "busy";
  const line = el("span", { class: "syft-steps" });
  STEPS.forEach((step, i) => {
    const word = WORDS[step] ?? step;
    line.append(i ? " → " : "", el(i === at ? "b" : "span", { class: i > at ? "syft-dim" : "", "aria-current": i === at ? "step" : null }, word));
  });
  root.replaceChildren(el("div", { class: `syft-item ${kind}` },
    el("div", { class: "syft-bar" },
      el("h5", {}, `Request ${view.number} at ${view.owner}`),
      ended(view.state) ? el("span", { class: "syft-badge" }, view.state) : line,
      ended(view.state) || view.state === "released" ? null
        : button("Cancel", () => ask({ do: "cancel" }).then(() => say("", false), (error) => say(error.message)))),
    view.why ? el("div", {}, view.why) : null,
    view.error ? el("div", {}, `the owner says: ${view.error}`) : null,
    view.state === "partly" ? el("div", {}, `approved by ${view.approvals[0]} of the ${view.approvals[1]} people it needs`) : null,
    el("div", { class: "syft-dim" }, view.state === "released"
      ? `${view.returns.join(", ")}: the values are here`
      : `returns ${view.returns.join(", ")}${ended(view.state) ? "" : "; the notebook stays free"}`),
    talk(view, root, ask, say)));
}, "state of a request");

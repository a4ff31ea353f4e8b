// The inbox: one card a request; approve, deny, look at the result, release, withhold.
const KIND = { filed: "wants", review: "wants", approved: "busy", running: "busy", released: "good", denied: "bad",
  failed: "bad", interrupted: "bad", withheld: "bad", cancelled: "" };
const looked = new Map(); // request → what the owner saw: it stays in this page, and is never saved with a notebook
const typed = new Map(); // request → a reason that is being typed

function act(ask, say, command, done) {
  return ask(command).then((ok) => { say(done ?? "", false); return ok; }, (error) => say(error.message));
}

function reasonField(request, label) {
  return el("input", { type: "text", "aria-label": label, placeholder: label, maxlength: 2000, "data-reason": request.id,
    oninput: (e) => typed.set(request.id, e.target.value) });
}

function preview(found) {
  return el("div", { class: "syft-preview" },
    el("div", { class: "syft-dim" }, "What would leave (you alone see this; it is not saved with the notebook):"),
    found.values.map((v) => el("div", {},
      el("b", {}, v.name), " ", el("span", { class: "syft-dim" }, `${v.kind}${v.shape.length ? " " + v.shape.join("×") : ""}, ${v.bytes} bytes`),
      el("pre", { tabindex: "0", "aria-label": `value of ${v.name}` }, v.preview))),
    found.log ? el("details", {}, el("summary", {}, "What it printed"), el("pre", { tabindex: "0" }, found.log)) : null);
}

function card(request, ask, say, again) {
  const { id, digest } = request;
  const reason = reasonField(request, request.state === "filed" ? "reason for a denial" : "reason (optional)");
  reason.value = typed.get(id) ?? "";
  const seen = looked.get(id);
  const acts = el("div", { class: "syft-acts" });
  if (request.state === "filed") {
    acts.append(
      button("Approve", () => act(ask, say, { do: "approve", id, digest }, `request ${request.number} approved`), { class: "main" }),
      reason,
      button("Deny", () => act(ask, say, { do: "deny", id, reason: reason.value }, `request ${request.number} denied`)));
  } else if (request.state === "review") {
    if (!seen) acts.append(button("Look at the result", async () => {
      const found = await act(ask, say, { do: "preview", id });
      if (found) { looked.set(id, found); again(); }
    }, { class: "main" }));
    const release = button("Release", () => act(ask, say, { do: "release", id }, `request ${request.number} released`),
      { class: seen ? "main" : "", title: seen ? "" : "look at the result first" });
    release.disabled = !seen;
    acts.append(release, reason,
      button("Withhold", () => act(ask, say, { do: "withhold", id, reason: reason.value }, `request ${request.number} withheld`)));
  } else if (request.open) {
    acts.append(button("Cancel", () => act(ask, say, { do: "cancel", id }, `request ${request.number} cancelled`)));
  } else if (request.state === "failed" && !seen) {
    acts.append(button("Show what it printed", async () => {
      const found = await act(ask, say, { do: "preview", id });
      if (found) { looked.set(id, found); again(); }
    }));
  }
  const params = Object.entries(request.params).map(([k, v]) => `${k} = ${JSON.stringify(v)}`).join(", ");
  return el("article", { class: `syft-item ${KIND[request.state] ?? ""}`, "aria-label": `request ${request.number}`, "data-request": request.number },
    el("div", { class: "syft-bar" }, el("h5", {}, `Request ${request.number} from ${request.analyst}`),
      el("span", { class: "syft-badge" }, request.says), el("span", { class: "syft-dim" }, request.filed.slice(0, 16).replace("T", " "))),
    facts([["reason", request.reason || "none given"], ["reads", request.datasets.join(", ")], ["returns", request.outputs.join(", ")],
      ["parameters", params], ["on the mock", request.behaviour], ["told the analyst", request.why]]),
    code(request.tokens),
    seen && (request.state === "review" || request.state === "failed") ? preview(seen) : null,
    acts.childNodes.length ? acts : null,
    el("details", { class: "syft-digest" }, el("summary", {}, "digest"), el("code", {}, digest)));
}

export default widget((view, root, ask, say, again) => {
  // Cards that did not change stay as they are: what is typed, focused or scrolled in them is left alone.
  const drawn = (root.syftCards ??= new Map());
  const shown = (r) => {
    const now = JSON.stringify([r, looked.has(r.id)]);
    if (drawn.get(r.id)?.now !== now) drawn.set(r.id, { now, node: card(r, ask, say, again) });
    return drawn.get(r.id).node;
  };
  const open = view.requests.filter((r) => r.open), over = view.requests.filter((r) => !r.open);
  const wants = open.filter((r) => r.state === "filed" || r.state === "review").length;
  if (!root.firstChild) {
    root.append(
      el("div", { class: "syft-bar" }, el("h4", {}, `Inbox of ${view.owner}`), el("span", { class: "syft-dim syft-count" })),
      el("div", { class: "syft-item syft-dim syft-empty" },
        "When an analyst files a %%remote cell, it appears here at once, also while a cell runs."),
      el("div", { class: "syft-open" }),
      el("details", { class: "syft-over" }, el("summary", {}), el("div")));
  }
  const [, empty, first, rest] = root.children;
  root.querySelector(".syft-count").textContent = wants ? `${wants} wait${wants === 1 ? "s" : ""} for you` : "nothing waits for you";
  empty.hidden = open.length > 0;
  arrange(first, open.map(shown));
  rest.hidden = !over.length;
  rest.firstChild.textContent = `${view.over} decided${view.over > over.length ? ` (the last ${over.length})` : ""}`;
  arrange(rest.lastChild, over.map(shown));
}, "inbox of requests");

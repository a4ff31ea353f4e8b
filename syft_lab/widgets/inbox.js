// The inbox: one card a request; read what it does, talk about it, approve, deny, look at the result, release, withhold.
const UNDECIDED = ["filed", "seen", "partly"];
const KIND = { filed: "wants", seen: "wants", partly: "wants", review: "wants", approved: "busy", running: "busy", released: "good",
  denied: "bad", failed: "bad", interrupted: "bad", withheld: "bad", cancelled: "", expired: "", joined: "good", left: "" };
// What the owner alone may see stays in this page, by request, and is never saved with a notebook.
const looked = new Map(), secrets = new Map(), explained = new Map();
const typed = new Map(); // field → what is being typed into it
const STILL = 600; // ms; the second click of a double click comes within 500
const chosen = new Map(); // request → the digest that will be approved with others
const fetched = new Map(); // request → {entry, facts}: cards beyond the first ones are asked for when they come into view
const AT_ONCE = 40; // cards drawn before the page is shown; the others follow when it is idle
const idle = window.requestIdleCallback ?? ((work) => setTimeout(work, 20)); // Safari has no such call
const DWELL = 1500; // ms that a card is in view before it counts as seen
const ASK_AGAIN = 5000; // ms after the kernel did not give a card

function act(ask, say, command, done) {
  return ask(command).then((ok) => { say(done ?? "", false); return ok; }, (error) => say(error.message));
}

function field(key, label) {
  const node = el("input", { type: "text", "aria-label": label, placeholder: label, maxlength: 2000, "data-field": key,
    oninput: (e) => typed.set(key, e.target.value) });
  node.value = typed.get(key) ?? "";
  return node;
}

function preview(found) {
  return el("div", { class: "syft-preview" },
    el("div", { class: "syft-dim" }, "What would leave (you alone see this; it is not saved with the notebook):"),
    found.held ? el("div", { class: "syft-warn" }, `Its rule did not let it leave: ${found.held}`) : null,
    found.error ? el("div", { class: "syft-warn" }, `It raised ${found.error}`) : null,
    found.values.map((v) => el("div", {},
      el("b", {}, v.name), " ", el("span", { class: "syft-dim" }, `${v.kind}${v.shape.length ? " " + v.shape.join("×") : ""}, ${v.bytes} bytes`),
      v.small ? el("span", { class: "syft-warn" }, ` ${v.small} may be ${v.small === 1 ? "a count" : "counts"} below 3`) : null,
      el("pre", { tabindex: "0", "aria-label": `value of ${v.name}` }, v.preview))),
    found.log ? el("details", {}, el("summary", {}, "What it printed"), el("pre", { tabindex: "0" }, found.log)) : null);
}

function changes({ against, diff, near }) {
  const same = near.filter((n) => n.same).map((n) => `${n.number} (${n.state})`);
  const others = near.filter((n) => !n.same).map((n) => `${n.number} (${n.state}, ${Math.round(100 * n.ratio)} % alike)`);
  const lines = diff.map((line) => el("div", { class: line[0] === "+" ? "add" : line[0] === "-" ? "cut" : "syft-dim" }, line || " "));
  return [
    same.length ? el("div", {}, el("b", {}, "The same as "), `request${same.length > 1 ? "s" : ""} ${same.join(", ")}`) : null,
    others.length ? el("div", { class: "syft-dim" }, `much like request${others.length > 1 ? "s" : ""} ${others.join(", ")}`) : null,
    diff.length ? el("details", { open: true }, el("summary", {}, `What changed since request ${against}`),
      el("pre", { class: "syft-diff", tabindex: "0", "aria-label": `changes since request ${against}` }, lines)) : null,
  ];
}

function behaviour(request) {
  const hints = request.hints.length ? el("details", {}, el("summary", {}, `${request.hints.length} hint${request.hints.length > 1 ? "s" : ""}`
    + " (found without running it; code can hide from them)"), el("ul", {}, request.hints.map((h) => el("li", {}, h)))) : null;
  return [facts([["on the mock", request.behaviour], ["growth", request.growth], ["influence", request.influence]]), hints];
}

function forYou(request, ask, say, again) {
  const found = secrets.get(request.id);
  const lines = found ? [...found.cohorts, found.influence].filter(Boolean) : [];
  const drop = button("Leave one person out", async () => {
    say("running it on the data without one person, for some people…", false);
    if (await act(ask, say, { do: "drop", id: request.id })) await tell(request, ask, again);
  }, { title: "runs the code on your data without one person, for some people; you alone see what that changed" });
  const why = button("Why not by itself?", async () => {
    const text = await act(ask, say, { do: "explain", id: request.id });
    if (text) { explained.set(request.id, text); again(); }
  }, { title: "what each rule of your policy says of it" });
  return el("div", { class: "syft-foryou" },
    lines.map((line) => el("div", { class: /differs|fewer/.test(line) ? "syft-warn" : "" }, line)),
    explained.has(request.id) ? el("pre", { tabindex: "0", "aria-label": "what the policy says" }, explained.get(request.id)) : null,
    el("div", { class: "syft-acts" }, drop, explained.has(request.id) ? null : why,
      lines.length ? el("span", { class: "syft-dim" }, "of real data: you alone see it") : null));
}

async function tell(request, ask, again) {
  try {
    secrets.set(request.id, await ask({ do: "private", id: request.id }));
    again();
  } catch { /* the kernel is gone; the card says what it knows */ }
}

function talk(request, ask, say) {
  const said = field(`comment-${request.id}`, "comment, for the analyst and others who decide");
  const send = () => act(ask, say, { do: "comment", id: request.id, text: said.value })
    .then((ok) => { if (ok) { typed.delete(`comment-${request.id}`); said.value = ""; } });
  said.addEventListener("keydown", (e) => { if (e.key === "Enter") send(); });
  return el("details", { class: "syft-talk", open: request.comments.length > 0 },
    el("summary", {}, request.comments.length ? `${request.comments.length} comment${request.comments.length > 1 ? "s" : ""}` : "Comment"),
    el("ol", { "aria-label": "comments" }, request.comments.map((c) => el("li", {}, el("b", {}, c.by),
      el("span", { class: "syft-dim" }, ` ${c.time.slice(0, 16).replace("T", " ")}  `), c.text))),
    el("div", { class: "syft-acts" }, said, button("Send", send)));
}

function buttons(request, ask, say, again) {
  const { id, digest, number } = request;
  const seen = looked.get(id), acts = el("div", { class: "syft-acts" });
  const look = (label) => button(label, async () => {
    const found = await act(ask, say, { do: "preview", id });
    if (found) { looked.set(id, found); again(); }
  }, { class: "main" });
  if (UNDECIDED.includes(request.state)) {
    const reason = field(`reason-${id}`, "reason for a denial");
    acts.append(
      button(request.approving[0], () => act(ask, say, { do: "approve", id, digest }, `request ${number} approved`),
        { class: "main", title: request.approving[1] }), reason,
      button("Deny", () => act(ask, say, { do: "deny", id, reason: reason.value }, `request ${number} denied`)));
  } else if (request.state === "review") {
    const reason = field(`reason-${id}`, "reason (optional)");
    if (!seen) acts.append(look("Look at the result"));
    const release = button("Release", () => act(ask, say, { do: "release", id }, `request ${number} released`),
      { class: seen ? "main" : "", title: seen ? "" : "look at the result first" });
    release.disabled = !seen;
    acts.append(release, reason,
      button("Withhold", () => act(ask, say, { do: "withhold", id, reason: reason.value }, `request ${number} withheld`)));
  } else if (request.state === "joined") {
    acts.append(button("Leave the federation", () => act(ask, say, { do: "cancel", id }, `request ${number}: you left the federation`),
      { title: "what runs in it ends" }));
  } else if (request.open) {
    acts.append(button("Cancel", () => act(ask, say, { do: "cancel", id }, `request ${number} cancelled`)));
  } else if (request.state === "failed") {
    if (!seen) acts.append(look("Show what went wrong"));
    else if (seen.error && !request.explained) acts.append(button("Release the kind of error and its line",
      () => act(ask, say, { do: "release_error", id }, `of request ${number} the kind of error was released`)));
  }
  return acts.childNodes.length ? acts : null;
}

function card(request, ask, say, again) {
  const { id, digest, number } = request;
  const seen = looked.get(id), undecided = UNDECIDED.includes(request.state);
  const params = Object.entries(request.params).map(([k, v]) => `${k} = ${JSON.stringify(v)}`).join(", ");
  const pick = undecided ? el("input", { type: "checkbox", class: "syft-pick", "aria-label": `choose request ${number}`,
    onchange: (e) => { if (e.target.checked) chosen.set(id, digest); else chosen.delete(id); again(); } }) : null;
  if (pick) pick.checked = chosen.get(id) === digest;
  const node = el("article", { class: `syft-item ${KIND[request.state] ?? ""}`, "aria-label": `request ${number}`, "data-request": number, tabindex: "-1" },
    el("div", { class: "syft-bar" }, pick, el("h5", {}, `Request ${number} from ${request.analyst}`),
      el("span", { class: "syft-badge" }, request.says),
      el("span", { class: "syft-dim" }, request.filed.slice(0, 16).replace("T", " ") + (request.follows ? `, follows ${request.follows}` : ""))),
    facts([["reason", request.reason || "none given"], ["reads", request.datasets.join(", ")], ["returns", request.outputs.join(", ")],
      ["parameters", params], ["approvals", request.approvals], ["decided", undecided ? "" : request.decided],
      ["told the analyst", request.why]]),
    code(request.tokens),
    changes(request.earlier),
    behaviour(request),
    undecided && request.datasets.length ? forYou(request, ask, say, again) : null,
    seen && ["review", "failed"].includes(request.state) ? preview(seen) : null,
    buttons(request, ask, say, again),
    talk(request, ask, say),
    el("details", { class: "syft-digest" }, el("summary", {}, "digest and limits"), el("code", {}, digest), el("div", {}, `may take ${request.limits}`)));
  if (undecided && request.checked && !secrets.has(id)) tell(request, ask, again);
  if (request.state === "filed") dwell(node, () => ask({ do: "seen", id }).catch(() => undefined));
  return node;
}

/** A card that is not in view yet: its first line, and room for the rest. */
function brief(request, ask, again) {
  const node = el("article", { class: `syft-item syft-brief ${KIND[request.state] ?? ""}`, "aria-label": `request ${request.number}`, "data-request": request.number },
    el("div", { class: "syft-bar" }, el("h5", {}, `Request ${request.number} from ${request.analyst}`), el("span", { class: "syft-badge" }, request.says)),
    facts([["reason", request.reason || "none given"]]));
  const watch = new IntersectionObserver((entries) => {
    if (!entries.at(-1).isIntersecting) return; // a busy page hears of several at once: the last is what is now
    watch.disconnect();
    ask({ do: "card", id: request.id }).then(
      (facts) => { fetched.set(request.id, { entry: request.entry, facts }); again(); },
      () => setTimeout(() => watch.observe(node), ASK_AGAIN));
  }, { rootMargin: "600px" });
  watch.observe(node);
  return node;
}

/** Call ``then`` once a node was in view for a while, on a page that is shown. */
function dwell(node, then) {
  let timer = null;
  const watch = new IntersectionObserver((entries) => {
    const entry = entries.at(-1);
    clearTimeout(timer);
    // Half of it is in view, or it fills half of what can be seen.
    if (entry.intersectionRatio < 0.5 && entry.intersectionRect.height < (entry.rootBounds?.height ?? 0) / 2) return;
    timer = setTimeout(() => {
      if (document.visibilityState !== "visible" || !node.isConnected) return;
      watch.disconnect();
      then();
    }, DWELL);
  }, { threshold: [0, 0.1, 0.2, 0.3, 0.4, 0.5] });
  watch.observe(node);
}

/** Where ``arranging`` gives a card another place, no button takes a click for a moment: it was meant for the card that stood there. */
function inert(parent, arranging) {
  const order = () => Array.from(parent.children, (node) => node.dataset.request);
  const was = order();
  arranging();
  if (order().every((number, i) => was[i] === number || !was.includes(number))) return;
  parent.classList.add("syft-moved");
  clearTimeout(parent.syftStill);
  parent.syftStill = setTimeout(() => parent.classList.remove("syft-moved"), STILL);
}

function batch(root, view, ask, say, again) {
  const bar = root.querySelector(".syft-batch");
  const open = new Map(view.requests.filter((r) => UNDECIDED.includes(r.state)).map((r) => [r.id, r]));
  for (const [id, digest] of chosen) if (open.get(id)?.digest !== digest) chosen.delete(id);
  bar.hidden = chosen.size < 1;
  if (bar.hidden) return;
  const reason = field("reason-all", "reason for all denials");
  bar.replaceChildren(
    button(`Approve ${chosen.size} chosen`, () => act(ask, say, { do: "approve_all", digests: Object.fromEntries(chosen) },
      `${chosen.size} requests approved`).then((ok) => { if (ok) { chosen.clear(); again(); } }), { class: "main" }),
    reason,
    button("Deny them", async () => {
      for (const id of [...chosen.keys()])
        if (await act(ask, say, { do: "deny", id, reason: reason.value }, "denied")) chosen.delete(id); else return;
      again();
    }));
}

export default widget((view, root, ask, say, again) => {
  // Cards that did not change stay as they are: what is typed, focused or scrolled in them is left alone.
  const drawn = (root.syftCards ??= new Map()), unfinished = [];
  const shown = (r) => {
    const known = fetched.get(r.id), full = !r.brief ? r : known?.entry === r.entry ? known.facts : null;
    const now = full ? JSON.stringify([full, looked.has(r.id), secrets.get(r.id), explained.has(r.id), chosen.has(r.id)]) : `brief ${r.entry}`;
    const old = drawn.get(r.id);
    if (old?.now === now) return old.node;
    const node = full ? card(full, ask, say, again) : brief(r, ask, again);
    if (old) unfinished.push(carry(old.node, node));
    drawn.set(r.id, { now, node });
    return node;
  };
  const open = view.requests.filter((r) => r.open), over = view.requests.filter((r) => !r.open);
  const wanting = open.filter((r) => UNDECIDED.includes(r.state) || r.state === "review");
  if (!root.firstChild) {
    root.append(
      el("div", { class: "syft-bar" }, el("h4", {}, `Inbox of ${view.owner}`), el("span", { class: "syft-dim syft-count" })),
      el("div", { class: "syft-item syft-dim syft-empty" },
        "When an analyst files a %%remote cell, it appears here at once, also while a cell runs."),
      el("div", { class: "syft-acts syft-batch", role: "group", "aria-label": "chosen requests" }),
      el("div", { class: "syft-open" }),
      el("details", { class: "syft-over" }, el("summary", {}), el("div")));
  }
  const known = (root.syftKnown ??= new Map(wanting.map((r) => [r.id, r.state === "review"])));
  for (const r of wanting) {
    const ran = r.state === "review";
    if (known.get(r.id) !== ran && (ran || !known.has(r.id)))
      toast(`${r.id} ${ran}`, ran ? `Request ${r.number} ran: look at its result` : `Request ${r.number} from ${r.analyst} waits for you`, root);
    known.set(r.id, ran);
  }
  const [, empty, , first, rest] = root.children;
  const wants = wanting.length;
  root.querySelector(".syft-count").textContent = wants ? `${wants} wait${wants === 1 ? "s" : ""} for you` : "nothing waits for you";
  empty.hidden = open.length > 0;
  batch(root, view, ask, say, again);
  inert(first, () => arrange(first, open.slice(0, (root.syftMost ??= AT_ONCE)).map(shown)));
  if (open.length > root.syftMost) idle(() => { root.syftMost += AT_ONCE; again(); });
  rest.hidden = !over.length;
  rest.firstChild.textContent = `${view.over} decided${view.over > over.length ? ` (the last ${over.length})` : ""}`;
  // Cards that nobody opened are not drawn: an inbox of hundreds opens at once.
  const fill = () => arrange(rest.lastChild, rest.open ? over.map(shown) : []);
  if (!rest.syftOpens) { rest.syftOpens = true; rest.addEventListener("toggle", again); }
  fill();
  for (const finish of unfinished) finish();
}, "inbox of requests");

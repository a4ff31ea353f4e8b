// Shared by our widgets. Everything that others wrote enters the page as text, never as markup.
const DECEIVING = /[\p{Cc}\p{Cf}\p{Co}\p{Cn}\p{Cs}\p{Zl}\p{Zp}]/u;

/** Text with control, bidirectional and invisible characters spelled out. */
function visible(text) {
  return Array.from(String(text ?? ""), (c) =>
    c !== "\n" && c !== "\t" && DECEIVING.test(c) ? `\\u{${c.codePointAt(0).toString(16)}}` : c
  ).join("");
}

/** An element: el("div", {class: "x", onclick: f}, child, "text"…). */
function el(name, attributes = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === false || value === null || value === undefined) continue;
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else node.setAttribute(key, value === true ? "" : String(value));
  }
  for (const child of children.flat()) {
    if (child === null || child === undefined || child === false) continue;
    node.append(child instanceof Node ? child : document.createTextNode(visible(child)));
  }
  return node;
}

/** Names and values as a small table. */
function facts(pairs) {
  const rows = pairs.filter(([, value]) => value !== "" && value !== null && value !== undefined);
  return el("table", { class: "syft-facts" }, rows.map(([k, v]) =>
    el("tr", {}, el("th", { scope: "row" }, k), el("td", {}, v))));
}

/** Code in colours; what is not ASCII is marked, for it may only look like something else. */
function code(tokens) {
  const pre = el("pre", { class: "syft-code", tabindex: "0", "aria-label": "code" });
  for (const [kind, text] of tokens) {
    const span = el("span", { class: `tok-${kind}` });
    for (const part of visible(text).split(/([^\x00-\x7f]+)/u)) {
      if (!part) continue;
      const odd = /[^\x00-\x7f]/u.test(part);
      const names = Array.from(part, (c) => "U+" + c.codePointAt(0).toString(16).toUpperCase().padStart(4, "0"));
      span.append(odd ? el("mark", { title: `not ASCII: ${names.join(" ")}` }, part) : document.createTextNode(part));
    }
    pre.append(span);
  }
  return pre;
}

/** A button that shows it is working, and what went wrong. */
function button(label, work, attributes = {}) {
  const node = el("button", { type: "button", ...attributes }, label);
  node.addEventListener("click", async () => {
    node.disabled = true;
    try {
      await work();
    } finally {
      node.disabled = false;
    }
  });
  return node;
}

/** Sends commands to the kernel and gives promises of their replies. */
function commander(model) {
  const open = new Map();
  let next = 1;
  model.on("msg:custom", (message) => {
    const waiting = open.get(message?.reply);
    if (!waiting) return;
    open.delete(message.reply);
    clearTimeout(waiting.timer);
    if ("error" in message) waiting.no(new Error(message.error));
    else waiting.yes(message.ok);
  });
  return (command) => new Promise((yes, no) => {
    const n = `${Date.now()}-${next++}`;
    const late = "no answer from the kernel within 20 s: it is gone, or an ipykernel that serves clicks only between cells"
      + " (then use syft-lab requests in a terminal)";
    const timer = setTimeout(() => { open.delete(n); no(new Error(late)); }, 20000);
    open.set(n, { yes, no, timer });
    model.send({ ...command, n });
  });
}

/** Put ``nodes`` into ``parent`` in this order, touching only what changed, so that focus and scrolling stay where they are. */
function arrange(parent, nodes) {
  const wanted = new Set(nodes);
  for (const child of Array.from(parent.childNodes)) if (!wanted.has(child)) child.remove();
  let at = parent.firstChild;
  for (const node of nodes) {
    if (node === at) at = at.nextSibling;
    else parent.insertBefore(node, at);
  }
}

/** What a person does in ``old`` goes on in ``next``, drawn anew: unfolded, scrolled, focused. Gives what is left to do once it is shown. */
function carry(old, next) {
  const named = (node) => `${node.tagName} ${node.dataset.field ?? node.getAttribute("aria-label") ?? node.textContent}`;
  const twin = (node) => Array.from(next.querySelectorAll(node.tagName)).find((other) => named(other) === named(node));
  for (const summary of old.querySelectorAll("details > summary")) {
    const is = twin(summary)?.parentNode;
    if (is) is.open = summary.parentNode.open;
  }
  const scrolled = Array.from(old.querySelectorAll("pre")).filter((pre) => pre.scrollTop).map((pre) => [twin(pre), pre.scrollTop]);
  const was = old.contains(document.activeElement) ? document.activeElement : null;
  const caret = was?.type === "text" ? [was.selectionStart, was.selectionEnd] : null;
  return () => {
    for (const [pre, top] of scrolled) if (pre) pre.scrollTop = top;
    const is = was && (twin(was) ?? next); // what it stood on is gone: it stays on the card
    is?.focus({ preventScroll: true });
    if (caret && is !== next) is.setSelectionRange(...caret);
  };
}

/** A note in the corner of the page, once for each ``key``, gone after a while or by a click; a click leads to ``target``.
 *  Where the workbench is in the page it tells of the same, as its settings say. */
function toast(key, text, target = null) {
  if (document.syftWorkbench) return;
  const told = (document.syftTold ??= new Set());
  if (told.has(key)) return;
  told.add(key);
  let corner = document.querySelector(".syft-toasts");
  if (!corner) document.body.append(corner = el("div", { class: "syft-toasts", role: "status", "aria-live": "polite" }));
  const note = el("button", { type: "button", class: "syft-toast", onclick: () => {
    note.remove();
    target?.scrollIntoView({ block: "start", behavior: "smooth" });
  } }, text);
  corner.append(note);
  while (corner.children.length > 4) corner.firstChild.remove();
  setTimeout(() => note.remove(), 10000);
}

/** A widget: draws with ``draw(view, root, ask, say)`` now and at every change of the view. */
function widget(draw, label) {
  return {
    render({ model, el: root }) {
      const ask = commander(model);
      const notice = el("div", { class: "syft-notice", role: "status", "aria-live": "polite" });
      const say = (text, wrong = true) => {
        notice.textContent = visible(text);
        notice.classList.toggle("wrong", wrong);
      };
      const box = el("section", { class: "syft-panel", "aria-label": label });
      const again = () => draw(model.get("view"), box, ask, say, again);
      root.append(box, notice);
      model.on("change:view", again);
      const theme = new MutationObserver(again);
      theme.observe(document.body, { attributeFilter: ["data-jp-theme-name"] });
      again();
      return () => { model.off("change:view", again); theme.disconnect(); };
    },
  };
}

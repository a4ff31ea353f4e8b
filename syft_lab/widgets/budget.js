// Budget gauges: bars at once, dials as soon as Plotly is here. Plotly comes from the kernel once a page, and is not saved
// with the notebook; where it can't come (no kernel, a strict page) the bars stay.
const loaded = (globalThis.__syftLabPlotly ??= { library: null, coming: null });

async function plotly(ask) {
  if (loaded.library) return loaded.library;
  loaded.coming ??= ask({ do: "plotly" }).then((source) => {
    const module = { exports: {} };
    new Function("module", "exports", "define", source).call(globalThis, module, module.exports, undefined);
    loaded.library = module.exports.newPlot ? module.exports : globalThis.Plotly;
    return loaded.library;
  });
  return loaded.coming;
}

function colour(node, name, fallback) {
  return getComputedStyle(node).getPropertyValue(name).trim() || fallback;
}

function number(value) {
  return Number(value.toPrecision(6)).toString();
}

function bar(gauge) {
  const share = (v) => `width:${gauge.cap ? Math.min(100, (100 * v) / gauge.cap) : 0}%`;
  return el("div", { class: "syft-gauge", "aria-hidden": "true" },
    el("div", { class: "spent", style: share(gauge.spent) }), el("div", { class: "reserved", style: share(gauge.reserved) }));
}

function dial(library, place, gauge) {
  const text = colour(place, "--jp-ui-font-color1", "#1a1a1a"), dim = colour(place, "--jp-ui-font-color2", "#616161");
  const steps = [
    { range: [0, gauge.spent], color: colour(place, "--jp-warn-color1", "#e65100") },
    { range: [gauge.spent, gauge.spent + gauge.reserved], color: colour(place, "--jp-warn-color3", "#ffb74d") },
  ];
  library.react(place, [{
    type: "indicator", mode: "gauge+number", value: gauge.left, number: { prefix: "ε ", suffix: " left", font: { size: 20, color: text } },
    gauge: { axis: { range: [0, gauge.cap || 1], tickcolor: dim, tickfont: { color: dim, size: 11 } }, bar: { thickness: 0 },
      bgcolor: colour(place, "--jp-layout-color3", "#e0e0e0"), borderwidth: 0, steps },
  }], { height: 150, width: 240, margin: { t: 24, b: 8, l: 26, r: 26 }, paper_bgcolor: "rgba(0,0,0,0)", font: { color: text } },
  { displayModeBar: false, staticPlot: true });
}

export default widget((view, root, ask, say, again) => {
  const items = view.gauges.map((gauge) => {
    const words = `spent ${number(gauge.spent)}, reserved ${number(gauge.reserved)}, left ${number(gauge.left)} of ${number(gauge.cap)}`;
    const place = el("div", { class: "syft-dial", role: "img", "aria-label": `${gauge.label}: ${words}` }, bar(gauge));
    return [gauge, place, el("div", { class: "syft-item" }, el("h5", {}, gauge.label), place,
      facts([["spent", `ε ${number(gauge.spent)}`], ["reserved", `ε ${number(gauge.reserved)}`], ["left", `ε ${number(gauge.left)} of ${number(gauge.cap)}`],
        ["exact releases", gauge.exact ? `${gauge.exact}: by approval, no ε bounds them` : "none"], ["", gauge.note]]))];
  });
  root.replaceChildren(
    el("div", { class: "syft-bar" }, el("h4", {}, `Budget at ${view.owner}`),
      button("Refresh", () => ask({ do: "refresh" }).then((time) => say(`as of ${time}`, false), (error) => say(error.message)))),
    items.length ? el("div", { class: "syft-dials" }, items.map((i) => i[2])) : el("div", { class: "syft-item syft-dim" }, view.empty));
  if (items.length) plotly(ask).then((library) => requestAnimationFrame(() => {
    for (const [gauge, place] of items) if (place.isConnected) { place.replaceChildren(); dial(library, place, gauge); }
  })).catch(() => undefined);
}, "budget");

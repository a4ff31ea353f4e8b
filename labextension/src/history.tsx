/** What was spent when: a step plot for each population, and the same as a table for those who can't see it. */
import React from 'react';
import { ReactWidget } from '@jupyterlab/ui-components';
import type { Line } from './protocol.js';
import type { Workbench } from './state.js';
import { plain, visible } from './text.js';

interface ILine {
  population: string;
  cap: number;
  points: [string, number, string, number][]; // time, spent in all, by whom, how much
}

// One copy of Plotly a page, whoever asks first: the budget widget in a cell keeps it in the same place.
const page = globalThis as any;
const loaded = (page.__syftLabPlotly ??= { library: null, coming: null });

/** Plotly, from the kernel's own package: the page needs no network. */
function plotly(line: Line): Promise<any> {
  if (loaded.library) return Promise.resolve(loaded.library);
  loaded.coming ??= line.ask('history', { do: 'plotly' }).then((source: string) => {
    const module: { exports: any } = { exports: {} };
    new Function('module', 'exports', 'define', source).call(globalThis, module, module.exports, undefined);
    loaded.library = module.exports.newPlot ? module.exports : page.Plotly;
    return loaded.library;
  });
  loaded.coming.catch(() => { loaded.coming = null; });
  return loaded.coming;
}

export class HistoryView extends ReactWidget {
  constructor(private _bench: Workbench, readonly line: Line) {
    super();
    this.addClass('syft-History');
    this._shown = _bench.show('history');
    _bench.changed.connect(this._again, this);
    this._theme = new MutationObserver(() => this._again());
    this._theme.observe(document.body, { attributeFilter: ['data-jp-theme-name'] });
  }

  dispose(): void {
    this._shown.dispose();
    this._theme.disconnect();
    this._bench.changed.disconnect(this._again, this);
    super.dispose();
  }

  protected onAfterShow(): void {
    this.update();
  }

  protected render(): JSX.Element {
    const view = this.line.views.get('history');
    const theme = document.body.dataset.jpThemeName ?? '';
    if (!view) return <div className="syft-Empty"><p>Asking the kernel…</p></div>;
    if (!view.lines.length) return <div className="syft-Empty"><p>No question was answered yet: nothing is spent.</p></div>;
    return (
      <div className="syft-Scroll">
        <h2>What was spent at {visible(view.owner)}</h2>
        {view.lines.map((line: ILine) => <Plot key={line.population} spent={line} line={this.line} theme={theme} />)}
      </div>
    );
  }

  private _again(): void {
    if (this.isVisible) this.update();
  }

  private _shown: { dispose(): void };
  private _theme: MutationObserver;
}

function Plot({ spent, line, theme }: { spent: ILine; line: Line; theme: string }): JSX.Element {
  const place = React.useRef<HTMLDivElement>(null);
  const last = spent.points[spent.points.length - 1];
  const words = `${spent.population}: ε ${plain(last?.[1] ?? 0)} of ${plain(spent.cap)} spent in ${spent.points.length} questions`;
  React.useEffect(() => {
    const node = place.current;
    if (!node) return;
    const colour = (name: string, fallback: string) => getComputedStyle(node).getPropertyValue(name).trim() || fallback;
    plotly(line).then(library => {
      if (!node.isConnected) return;
      const text = colour('--jp-ui-font-color1', '#1a1a1a');
      const grid = colour('--jp-border-color2', '#d0d0d0');
      const x = spent.points.map(p => p[0]);
      const axis = { gridcolor: grid, linecolor: grid, zerolinecolor: grid, automargin: true };
      library.react(node, [
        { type: 'scatter', mode: 'lines+markers', line: { shape: 'hv', color: colour('--jp-warn-color1', '#e65100') }, name: 'spent',
          x, y: spent.points.map(p => p[1]), text: spent.points.map(p => visible(`${p[2]}: ε ${plain(p[3])}`)), hoverinfo: 'x+y+text' },
        { type: 'scatter', mode: 'lines', line: { dash: 'dot', color: text }, name: 'cap', x: [x[0], x[x.length - 1]], y: [spent.cap, spent.cap] }
      ], {
        height: 280, margin: { t: 10, r: 16, b: 40, l: 48 }, paper_bgcolor: 'rgba(0,0,0,0)', plot_bgcolor: 'rgba(0,0,0,0)',
        font: { color: text, family: colour('--jp-ui-font-family', 'sans-serif'), size: 12 }, xaxis: axis,
        yaxis: { ...axis, title: { text: 'ε spent' }, rangemode: 'tozero' }, legend: { orientation: 'h', y: 1.15 }
      }, { displayModeBar: false, responsive: true });
    }, () => undefined);
  }, [spent.points.length, theme]);
  return (
    <section aria-label={visible(spent.population)}>
      <h3>{visible(spent.population)} <span className="syft-Dim">ε {plain(last?.[1] ?? 0)} of {plain(spent.cap)}</span></h3>
      <div ref={place} role="img" aria-label={visible(words)} />
      <details>
        <summary>as a table</summary>
        <table className="syft-Table">
          <thead><tr><th scope="col">time</th><th scope="col">analyst</th><th scope="col">ε</th><th scope="col">spent in all</th></tr></thead>
          <tbody>
            {spent.points.map((p, i) => <tr key={i}><td>{p[0].slice(0, 19).replace('T', ' ')}</td><td>{visible(p[2])}</td><td>{plain(p[3])}</td><td>{plain(p[1])}</td></tr>)}
          </tbody>
        </table>
      </details>
    </section>
  );
}

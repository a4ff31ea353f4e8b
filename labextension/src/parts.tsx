/** Small parts that the views share. */
import React from 'react';
import type { IColumn, IDataset, IGauge } from './views.js';
import { moved, plain, visible } from './text.js';

/** A section that folds. What is in it is not drawn while it is folded. */
export function Section(props: { title: string; badge?: string | number; open?: boolean; children: React.ReactNode }): JSX.Element {
  const [open, setOpen] = React.useState(props.open ?? true);
  const id = React.useId();
  return (
    <section className="syft-Section" aria-labelledby={id}>
      <h3>
        <button id={id} type="button" aria-expanded={open} onClick={() => setOpen(!open)}>
          <span className="syft-Fold" aria-hidden="true">{open ? '▾' : '▸'}</span>
          {props.title}
          {props.badge ? <span className="syft-Badge">{props.badge}</span> : null}
        </button>
      </h3>
      {open ? <div className="syft-Body">{props.children}</div> : null}
    </section>
  );
}

/** A button that shows that it works, and says what went wrong beside it. */
export function Act(props: {
  label: string;
  work: () => Promise<unknown> | void;
  title?: string;
  main?: boolean;
  disabled?: boolean;
  say: (text: string, wrong?: boolean) => void;
  done?: string;
  name?: string;
}): JSX.Element {
  const [busy, setBusy] = React.useState(false);
  const shown = React.useRef(true);
  React.useEffect(() => {
    shown.current = true;
    return () => { shown.current = false; };
  }, []);
  const click = async () => {
    setBusy(true);
    try {
      await props.work();
      if (props.done !== undefined) props.say(props.done);
    } catch (error) {
      props.say((error as Error).message, true);
    } finally {
      if (shown.current) setBusy(false);
    }
  };
  return (
    <button type="button" className={`syft-Act${props.main ? ' syft-mod-main' : ''}`} title={props.title} data-act={props.name}
      aria-busy={busy} disabled={busy || props.disabled} onClick={() => void click()}>
      {props.label}
    </button>
  );
}

const STILL = 600; // ms; the second click of a double click comes within 500

/** A list whose entries come and go. When one gets another place no button takes a click for a moment: it was meant for another. */
export function Moving(props: { label: string; ids: readonly string[]; children: React.ReactNode }): JSX.Element {
  const [moves, setMoves] = React.useState(0);
  const before = React.useRef(props.ids);
  React.useLayoutEffect(() => {
    const was = before.current;
    before.current = props.ids;
    if (moved(was, props.ids)) setMoves(n => n + 1);
  });
  React.useEffect(() => {
    if (!moves) return;
    const timer = setTimeout(() => setMoves(0), STILL);
    return () => clearTimeout(timer);
  }, [moves]);
  return <ul className={`syft-List${moves ? ' syft-mod-moved' : ''}`} aria-label={props.label}>{props.children}</ul>;
}

/** What a person is told about what they did last. */
export function useSay(): [JSX.Element, (text: string, wrong?: boolean) => void] {
  const [said, setSaid] = React.useState<{ text: string; wrong: boolean }>({ text: '', wrong: false });
  const say = React.useCallback((text: string, wrong = false) => setSaid({ text, wrong }), []);
  const notice = (
    <div className={`syft-Notice${said.wrong ? ' syft-mod-wrong' : ''}`} role="status" aria-live="polite">{visible(said.text)}</div>
  );
  return [notice, say];
}

/** Names and values; empty ones are left out. */
export function Facts(props: { pairs: [string, React.ReactNode][] }): JSX.Element {
  return (
    <dl className="syft-Facts">
      {props.pairs.filter(([, v]) => v !== '' && v !== null && v !== undefined).map(([k, v]) => (
        <React.Fragment key={k}><dt>{k}</dt><dd>{typeof v === 'string' ? visible(v) : v}</dd></React.Fragment>
      ))}
    </dl>
  );
}

export function Gauge({ gauge }: { gauge: IGauge }): JSX.Element {
  const share = (v: number) => `${gauge.cap ? Math.min(100, (100 * v) / gauge.cap) : 0}%`;
  const words = `spent ${plain(gauge.spent)}, reserved ${plain(gauge.reserved)}, left ${plain(gauge.left)} of ${plain(gauge.cap)}`;
  return (
    <div className="syft-Gauge">
      <div className="syft-Row">
        <span className="syft-Name">{visible(gauge.label)}</span>
        <span className="syft-Dim">ε <b>{plain(gauge.left)}</b> of {plain(gauge.cap)} left</span>
      </div>
      <div className="syft-Bar" role="img" aria-label={visible(`${gauge.label}: ε ${words}`)} title={`ε ${words}`}>
        <div className="syft-mod-spent" style={{ width: share(gauge.spent) }} />
        <div className="syft-mod-reserved" style={{ width: share(gauge.reserved) }} />
        {gauge.next ? <div className="syft-mod-next" style={{ width: share(Math.min(gauge.next, gauge.left)) }} /> : null}
      </div>
      {gauge.note ? <div className="syft-Dim">{visible(gauge.note)}</div> : null}
    </div>
  );
}

function limits(column: IColumn): string {
  if (column.categories) return column.categories.slice(0, 6).join(', ') + (column.categories.length > 6 ? ', …' : '');
  return column.bounds ? `${plain(column.bounds[0])} to ${plain(column.bounds[1])}` : '';
}

/** A dataset: a first line, and its schema when it is unfolded. */
export function Dataset(props: { dataset: IDataset; pick?: () => void; more?: React.ReactNode }): JSX.Element {
  const { dataset } = props;
  const [open, setOpen] = React.useState(false);
  const size = dataset.tensor
    ? `${dataset.tensor.dtype} ${dataset.tensor.shape.join('×')}`
    : `${dataset.columns.length} columns${dataset.rows === null ? '' : `, ${dataset.rows} rows`}`;
  const name = visible(dataset.name);
  return (
    <li className="syft-Item">
      <div className="syft-Row">
        <button type="button" className="syft-Fold" aria-expanded={open} aria-label={`schema of ${name}`} onClick={() => setOpen(!open)}>
          {open ? '▾' : '▸'}
        </button>
        {props.pick ? (
          <button type="button" className="syft-Link syft-Name" title={`insert the code that gets ${name}`} onClick={props.pick}>{name}</button>
        ) : <span className="syft-Name">{name}</span>}
        <span className="syft-Dim">v{dataset.version}, {size}</span>
      </div>
      {dataset.tags.length ? <div className="syft-Tags">{dataset.tags.map(tag => <span key={tag}>{visible(tag)}</span>)}</div> : null}
      {open ? (
        <div className="syft-Schema">
          {dataset.description ? <div>{visible(dataset.description)}</div> : null}
          <div className="syft-Dim">
            about {visible(dataset.population)}; protects {dataset.privacy_unit === 'row' ? 'each row' : `each ${visible(dataset.privacy_unit)}`}
          </div>
          <table>
            <thead><tr><th scope="col">column</th><th scope="col">kind</th><th scope="col">values</th></tr></thead>
            <tbody>
              {dataset.columns.map(c => (
                <tr key={c.name}><th scope="row">{visible(c.name)}</th><td>{c.kind}</td><td>{visible(limits(c))}</td></tr>
              ))}
            </tbody>
          </table>
          {props.more}
        </div>
      ) : null}
    </li>
  );
}

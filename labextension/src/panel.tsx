/** The side panel: what the kernel of the notebook in front hosts, and what it is connected to. */
import React from 'react';
import { ReactWidget } from '@jupyterlab/ui-components';
import type { Workbench } from './state.js';
import type { Line } from './protocol.js';
import type { IAnalystView, IBrief, IMine, IOwnerView, ISession } from './views.js';
import { UNDECIDED, WAITING } from './views.js';
import { getting } from './remote.js';
import { ago, bytes, count, hue, visible } from './text.js';
import { Act, Dataset, Facts, Gauge, Moving, Section, useSay } from './parts.js';

/** What the panel has the rest of JupyterLab do. */
export interface IHooks {
  /** Put code into a new cell of the notebook in front, below the active one. */
  insert(code: string): void;
  /** Run a line in the kernel of the notebook in front. */
  run(code: string): Promise<void>;
  openInbox(id?: string): void;
  openHistory(): void;
}

const MOST = 8; // requests in the panel; the inbox at full width shows all

export class SidePanel extends ReactWidget {
  constructor(private _bench: Workbench, private _hooks: IHooks) {
    super();
    this.id = 'syft-lab-panel';
    this.addClass('syft-Side');
    this.title.caption = 'Syft Lab: owners, datasets, budgets, requests';
    this.node.setAttribute('role', 'region');
    this.node.setAttribute('aria-label', 'Syft Lab');
    this.node.tabIndex = -1;
    _bench.changed.connect(() => {
      if (this.isVisible) this.update();
    });
  }

  protected onAfterShow(): void {
    this.update();
  }

  protected render(): JSX.Element {
    const line = this._bench.current;
    return <Side key={line?.kernel.id ?? ''} line={line} owner={this._bench.owner} analyst={this._bench.analyst}
      fault={fault(line)} hooks={this._hooks} />;
  }
}

function fault(line: Line | null): string {
  return ['owner', 'analyst'].map(v => line?.views.get(v)?.fault).filter(Boolean).join('; ');
}

function Side(props: { line: Line | null; owner: IOwnerView | null; analyst: IAnalystView | null; fault: string; hooks: IHooks }): JSX.Element {
  const { line, owner, analyst, hooks } = props;
  const [notice, say] = useSay();
  if (!line) {
    return <Empty text="Open a notebook, or start its kernel: this panel follows it." />;
  }
  if (line.state === 'searching') return <Empty text="Asking the kernel…" />;
  if (line.state === 'gone') return <Empty text="The kernel is gone. Start it again, then load Syft Lab." />;
  if (line.state === 'none' && line.language && line.language !== 'python') {
    return <Empty text={`Syft Lab is for Python: this notebook's kernel speaks ${visible(line.language)}.`} />;
  }
  if (line.state === 'none' && !line.kernel.handleComms) {
    return <Empty text="Another view of this kernel was open first, and hears it alone. Close that one and reload the page." />;
  }
  if (line.state === 'none') {
    return (
      <Empty text="This notebook's kernel has not loaded Syft Lab.">
        <Act main label="Load Syft Lab" say={say} work={() => hooks.run('%load_ext syft_lab')} />
        {notice}
      </Empty>
    );
  }
  const idle = !owner && !analyst?.sessions.length;
  return (
    <div className="syft-Scroll">
      {line.mismatch ? <div className="syft-Notice syft-mod-wrong">{line.mismatch}</div> : null}
      {props.fault ? <div className="syft-Notice syft-mod-wrong">{visible(props.fault)}</div> : null}
      {idle ? (
        <Empty text="Nothing is hosted or connected here yet.">
          <button type="button" className="syft-Act" onClick={() => hooks.insert('%owner start my-hospital')}>Host data here</button>
          <button type="button" className="syft-Act" onClick={() => hooks.insert('%connect alice.syft')}>Connect to an owner</button>
        </Empty>
      ) : null}
      {owner ? <OwnerPart owner={owner} line={line} hooks={hooks} say={say} /> : null}
      {analyst?.sessions.map(s => <SessionPart key={s.name} session={s} line={line} hooks={hooks} say={say} />)}
      {analyst?.pointers.length ? <Pointers analyst={analyst} line={line} say={say} /> : null}
      {notice}
    </div>
  );
}

function Empty(props: { text: string; children?: React.ReactNode }): JSX.Element {
  return <div className="syft-Empty"><p>{props.text}</p>{props.children}</div>;
}

type Say = (text: string, wrong?: boolean) => void;

function OwnerPart(props: { owner: IOwnerView; line: Line; hooks: IHooks; say: Say }): JSX.Element {
  const { owner, line, hooks, say } = props;
  const ask = (command: { do: string; [k: string]: unknown }) => line.ask('owner', command);
  if (!owner.running) {
    return (
      <article aria-label={`owner ${visible(owner.name)}`}>
        <h2><Dot kind="off" /> {visible(owner.name)} <span className="syft-Dim">stopped</span></h2>
        <button type="button" className="syft-Act" onClick={() => hooks.insert(`%owner start ${owner.name}`)}>Start it again</button>
      </article>
    );
  }
  const open = owner.requests.filter(r => WAITING.includes(r.state));
  const jobs = owner.requests.filter(r => ['approved', 'running'].includes(r.state));
  return (
    <article aria-label={`owner ${visible(owner.name)}`}>
      <h2><Dot kind="on" /> {visible(owner.name)} <span className="syft-Dim">hosted here</span></h2>
      {owner.warning ? <div className="syft-Notice syft-mod-wrong">{visible(owner.warning)}</div> : null}
      <Section title="Inbox" badge={owner.waiting || ''}>
        {open.length ? (
          <Moving label="requests that wait for you" ids={open.slice(0, MOST).map(r => r.id)}>
            {open.slice(0, MOST).map(r => <Waiting key={r.id} request={r} ask={ask} say={say} open={() => hooks.openInbox(r.id)} />)}
          </Moving>
        ) : <p className="syft-Dim">Nothing waits for you.</p>}
        <div className="syft-Acts">
          <button type="button" className="syft-Act" onClick={() => hooks.openInbox()}>
            {owner.waiting > MOST ? `Open all ${owner.waiting}` : 'Open the inbox'}
          </button>
        </div>
      </Section>
      {jobs.length ? (
        <Section title="Running" badge={jobs.length}>
          <Moving label="running jobs" ids={jobs.map(r => r.id)}>
            {jobs.map(r => (
              <li key={r.id} className="syft-Item syft-Row">
                <span className="syft-Name">{r.number} · {visible(r.analyst)}</span><span className="syft-Dim">{visible(r.says)}</span>
                <Act label="Cancel" say={say} done={`request ${r.number} cancelled`} work={() => ask({ do: 'cancel', id: r.id })} />
              </li>
            ))}
          </Moving>
        </Section>
      ) : null}
      <Section title="Datasets" badge={owner.datasets.length}>
        {owner.datasets.length ? (
          <ul className="syft-List">
            {owner.datasets.map(d => <Dataset key={`${d.name} ${d.version}`} dataset={d}
              more={<div className="syft-Dim">budget of its people: ε {d.cap ?? 'none'} over all analysts</div>} />)}
          </ul>
        ) : <p className="syft-Dim">Nothing is published yet: owner.publish(…)</p>}
      </Section>
      <Section title="Analysts" badge={owner.analysts.length}>
        {owner.analysts.length ? (
          <ul className="syft-List">
            {owner.analysts.map(a => {
              const here = a.heard !== null && Date.now() / 1000 - a.heard < 40;
              return (
                <li key={a.name} className="syft-Item syft-Row" title={`key ${a.fingerprint}`}>
                  <Dot kind={here ? 'on' : 'off'} />
                  <span className="syft-Name">{visible(a.name)}</span>
                  <span className="syft-Dim">{visible(a.role)}, {here ? 'connected' : a.heard === null ? 'not since the start' : `heard ${ago(a.heard)}`}</span>
                </li>
              );
            })}
          </ul>
        ) : <p className="syft-Dim">Nobody is enrolled yet: owner.invite(…)</p>}
      </Section>
      <Section title="Budgets" open={false}>
        {owner.gauges.map(g => <Gauge key={g.label} gauge={g} />)}
        <div className="syft-Acts"><button type="button" className="syft-Act" onClick={hooks.openHistory}>What was spent when</button></div>
      </Section>
      <Section title="Log" open={false}>
        <ol className="syft-Log" role="log" aria-label="what happened last">
          {owner.events.slice(-40).map(([time, text], i) => (
            <li key={`${time} ${i}`}><time>{time}</time> {visible(text)}</li>
          ))}
        </ol>
        <div className="syft-Acts">
          <Act label="Verify the journal" say={say}
            work={async () => say(String(await ask({ do: 'verify' })))} />
        </div>
      </Section>
      <Section title="This owner" open={false}>
        <Facts pairs={[['address', owner.address], ['fingerprint', owner.fingerprint], ['isolation', owner.isolation], ['device', owner.device]]} />
      </Section>
    </article>
  );
}

function Waiting(props: {
  request: IBrief;
  ask: (command: { do: string; [k: string]: unknown }) => Promise<any>;
  say: Say;
  open: () => void;
}): JSX.Element {
  const { request, ask, say } = props;
  const [denying, setDenying] = React.useState(false);
  const [reason, setReason] = React.useState('');
  const undecided = UNDECIDED.includes(request.state);
  const deny = () => ask({ do: 'deny', id: request.id, reason });
  return (
    <li className="syft-Item syft-mod-wants" data-request={request.number}>
      <div className="syft-Row">
        <button type="button" className="syft-Link syft-Name" title="see everything about it" onClick={props.open}>
          {request.number} · {visible(request.analyst)}
        </button>
        <span className="syft-Dim">{visible(request.says)}</span>
      </div>
      <div className="syft-Two">{visible(request.reason) || <span className="syft-Dim">no reason given</span>}</div>
      {undecided ? (
        <div className="syft-Acts">
          <Act label="Look" main say={say} title="code, behaviour and policy, at full width" work={props.open} />
          <Act label="Approve" say={say} done={`request ${request.number} approved`} name="approve"
            title="let exactly this run; you see the result before it leaves"
            work={() => ask({ do: 'approve', id: request.id, digest: request.digest })} />
          {denying ? (
            <form className="syft-Acts" onSubmit={event => {
              event.preventDefault();
              deny().then(() => say(`request ${request.number} denied`), error => say(error.message, true));
            }}>
              <input autoFocus className="jp-mod-styled" aria-label="reason for the denial" placeholder="reason" maxLength={2000}
                value={reason} onChange={event => setReason(event.target.value)} />
              <button className="syft-Act" type="submit">Deny</button>
            </form>
          ) : <button type="button" className="syft-Act" data-act="deny" onClick={() => setDenying(true)}>Deny…</button>}
        </div>
      ) : (
        <div className="syft-Acts"><Act label="Look at the result" main say={say} work={props.open} /></div>
      )}
    </li>
  );
}

function SessionPart(props: { session: ISession; line: Line; hooks: IHooks; say: Say }): JSX.Element {
  const { session, line, hooks, say } = props;
  const ask = (command: { do: string; [k: string]: unknown }) => line.ask('analyst', { ...command, name: session.name });
  const open = session.requests.filter(r => !r.over);
  const over = session.requests.filter(r => r.over);
  const latency = session.latency === null ? '' : `, ${session.latency < 10 ? session.latency : Math.round(session.latency)} ms`;
  return (
    <article aria-label={`connection to ${visible(session.owner)}`} style={{ '--syft-hue': hue(session.fingerprint) } as React.CSSProperties}>
      <h2 className="syft-Colour">
        <Dot kind={session.state === 'connected' ? 'on' : session.state === 'lost' ? 'lost' : 'off'} /> {visible(session.owner)}{' '}
        <span className="syft-Dim">{session.state}{latency}</span>
      </h2>
      <div className="syft-Dim">as {visible(session.analyst)}, isolation {visible(session.isolation)}; <code>{visible(session.name)}</code> in this notebook</div>
      {session.warning ? <div className="syft-Notice syft-mod-wrong">{visible(session.warning)}</div> : null}
      {session.state === 'lost' ? (
        <div className="syft-Notice syft-mod-wrong">
          {visible(session.why)} <Act label="Try now" say={say} done={`connected to ${session.owner}`} work={() => ask({ do: 'reconnect' })} />
        </div>
      ) : null}
      {session.state === 'closed' ? <p className="syft-Dim">{visible(session.why)}</p> : (
        <>
          <Section title="Datasets" badge={session.datasets.length}>
            {session.datasets.length ? (
              <ul className="syft-List">
                {session.datasets.map(d => <Dataset key={d.name} dataset={d}
                  pick={() => hooks.insert(getting(session, d.name, d.columns, d.tensor !== null))} />)}
              </ul>
            ) : <p className="syft-Dim">No dataset is open to you yet.</p>}
          </Section>
          <Section title="Budget">
            {session.gauges.length ? session.gauges.map(g => <Gauge key={g.label} gauge={g} />)
              : <p className="syft-Dim">The owner opened no account for you.</p>}
          </Section>
          <Section title="Requests" badge={open.length || ''}>
            {session.requests.length ? (
              <ul className="syft-List" aria-label={`requests at ${visible(session.owner)}`}>
                {[...open, ...over.slice(0, 10)].map(r => <Mine key={r.number} request={r} say={say} hooks={hooks} session={session}
                  cancel={() => ask({ do: 'cancel', number: r.number })} />)}
              </ul>
            ) : <p className="syft-Dim">None yet. A <code>%%remote</code> cell makes one.</p>}
          </Section>
        </>
      )}
    </article>
  );
}

function Mine(props: { request: IMine; session: ISession; cancel: () => Promise<unknown>; say: Say; hooks: IHooks }): JSX.Element {
  const { request, session, say } = props;
  const kind = ['released', 'joined'].includes(request.state) ? 'good' : request.over ? 'bad' : 'busy';
  return (
    <li className={`syft-Item syft-mod-${kind}`}>
      <div className="syft-Row">
        <button type="button" className="syft-Link syft-Name" title="insert the code that shows it"
          onClick={() => props.hooks.insert(`%requests show ${request.number} --owner ${session.name}`)}>
          {request.number} · {visible(request.returns.join(', ') || 'partnership')}
        </button>
        <span className="syft-Dim">{visible(request.says)}</span>
        {request.over ? null : <Act label="Cancel" say={say} done={`request ${request.number} cancelled`} work={props.cancel} />}
      </div>
      {request.why || request.reason ? <div className="syft-Two">{visible(request.why || request.reason)}</div> : null}
      {request.error ? <div>{visible(request.error)}</div> : null}
      {request.comments ? <div className="syft-Dim">{count(request.comments, 'comment')}</div> : null}
    </li>
  );
}

function Pointers(props: { analyst: IAnalystView; line: Line; say: Say }): JSX.Element {
  const { pointers } = props.analyst;
  const total = pointers.reduce((sum, p) => sum + (p.bytes ?? 0), 0);
  return (
    <article aria-label="pointers">
      <Section title="Pointers and plans" badge={pointers.length}>
        <ul className="syft-List">
          {pointers.map(p => (
            <li key={p.name} className="syft-Item">
              <div className="syft-Row">
                <span className="syft-Name"><code>{visible(p.name)}</code></span>
                <span className="syft-Dim">{p.kind}{p.bytes === null ? '' : `, ${bytes(p.bytes)}`}</span>
                <Act label="Free" say={props.say} title={`del ${p.name}`} done={`${p.name} is gone from this notebook`}
                  work={() => props.line.ask('analyst', { do: 'free', name: p.name })} />
              </div>
              <div className="syft-Two">{visible(p.about)}{p.owner ? ` at ${visible(p.owner)}` : ''}</div>
              {p.label ? <div className="syft-Dim">{visible(p.label)}</div> : null}
            </li>
          ))}
        </ul>
        {total ? <p className="syft-Dim">{bytes(total)} at owners in all</p> : null}
      </Section>
    </article>
  );
}

function Dot({ kind }: { kind: 'on' | 'off' | 'lost' }): JSX.Element {
  const words = { on: 'there', off: 'away', lost: 'no answer' }[kind];
  return <span className={`syft-Dot syft-mod-${kind}`} role="img" aria-label={words} title={words} />;
}

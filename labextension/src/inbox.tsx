/** The inbox at full width: requests on the left, everything about one of them on the right. All of it works by keyboard. */
import React from 'react';
import { ReactWidget } from '@jupyterlab/ui-components';
import type { EditorView } from '@codemirror/view';
import type { Extension } from '@codemirror/state';
import type { IEditorLanguageRegistry } from '@jupyterlab/codemirror';
import { python, show } from './code.js';
import { Act, Facts, useSay } from './parts.js';
import type { Line } from './protocol.js';
import type { Workbench } from './state.js';
import type { IBrief, ICard } from './views.js';
import { UNDECIDED, WAITING } from './views.js';
import { count, visible } from './text.js';

type Ask = (command: { do: string; [key: string]: unknown }) => Promise<any>;
type Say = (text: string, wrong?: boolean) => void;

interface IPrivate {
  cohorts: string[];
  influence: string;
  held: string;
  error: string;
}

interface IPreview extends IPrivate {
  values: { name: string; kind: string; shape: number[]; bytes: number; preview: string; small: number }[];
  log: string;
}

export class InboxView extends ReactWidget {
  constructor(private _bench: Workbench, readonly line: Line, private _languages: IEditorLanguageRegistry) {
    super();
    this.addClass('syft-Inbox');
    this._shown = _bench.show('inbox');
    _bench.changed.connect(this._again, this);
  }

  /** Show one request, by its id. */
  choose(id: string): void {
    this._chosen = id;
    this._turn += 1;
    this.update();
  }

  dispose(): void {
    this._shown.dispose();
    this._bench.changed.disconnect(this._again, this);
    super.dispose();
  }

  protected onActivateRequest(): void {
    this.node.querySelector<HTMLElement>('.syft-Inbox-List')?.focus();
  }

  protected onAfterShow(): void {
    this.update();
  }

  protected render(): JSX.Element {
    const inbox = this.line.views.get('inbox');
    return <Inbox key={this._turn} chosen={this._chosen} line={this.line} state={this.line.state} requests={inbox?.requests ?? null}
      over={inbox?.over ?? 0} owner={inbox?.owner ?? ''} languages={this._languages} />;
  }

  private _again(): void {
    if (this.isVisible) this.update();
  }

  private _shown: { dispose(): void };
  private _chosen = '';
  private _turn = 0;
}

function Inbox(props: {
  chosen: string;
  line: Line;
  state: string;
  requests: (IBrief | ICard)[] | null;
  over: number;
  owner: string;
  languages: IEditorLanguageRegistry;
}): JSX.Element {
  const { line } = props;
  const [notice, say] = useSay();
  const [all, setAll] = React.useState(false);
  const [at, setAt] = React.useState(props.chosen);
  const [picked, setPicked] = React.useState<Map<string, string>>(new Map());
  const detail = React.useRef<HTMLDivElement>(null);
  const list = React.useRef<HTMLUListElement>(null);
  const ask: Ask = React.useCallback(command => line.ask('inbox', command), [line]);
  // By number, newest first: one that was just decided stays where it was, and j goes on to the next.
  const requests = (props.requests ?? []).filter(r => all || r.open || r.id === at).sort((a, b) => b.number - a.number);
  const index = Math.max(0, requests.findIndex(r => r.id === at));
  const current = requests[index];
  React.useEffect(() => { if (current) setAt(current.id); }, [current?.id]); // a newer one that comes in takes no reader's place
  const choose = (i: number) => {
    const next = requests[Math.min(requests.length - 1, Math.max(0, i))];
    if (!next) return;
    setAt(next.id);
    list.current?.querySelector(`[data-request="${next.number}"]`)?.scrollIntoView({ block: 'nearest' });
  };
  const pick = (r: IBrief | ICard) => {
    if (!UNDECIDED.includes(r.state)) return;
    setPicked(now => {
      const next = new Map(now);
      if (!next.delete(r.id)) next.set(r.id, r.digest);
      return next;
    });
  };
  /** Those that were decided are chosen no longer; what was chosen meanwhile is. */
  const leave = (ids: string[]) => setPicked(now => new Map([...now].filter(([id]) => !ids.includes(id))));
  const keys = (event: React.KeyboardEvent) => {
    const target = event.target as HTMLElement;
    if (event.ctrlKey || event.metaKey || event.altKey || /^(INPUT|TEXTAREA|SELECT)$/.test(target.tagName)) {
      if (event.key === 'Escape') list.current?.focus();
      return;
    }
    const focus = (act: string) => detail.current?.querySelector<HTMLElement>(`[data-act="${act}"]`)?.focus();
    const done: Record<string, () => void> = {
      j: () => choose(index + 1),
      ArrowDown: () => choose(index + 1),
      k: () => choose(index - 1),
      ArrowUp: () => choose(index - 1),
      x: () => current && pick(current),
      a: () => focus('approve'),
      d: () => focus('deny'),
      c: () => focus('comment')
    };
    if (event.key.startsWith('Arrow') && target !== list.current) return;
    const work = done[event.key];
    if (!work) return;
    event.preventDefault();
    work();
  };
  if (props.state !== 'open') return <div className="syft-Empty"><p>The owner's kernel is not there. Start it again, then %owner start.</p></div>;
  if (props.requests === null) return <div className="syft-Empty"><p>Asking the kernel…</p></div>;
  // A choice is of what was seen: one whose code changed, or that was decided elsewhere, is none.
  const chosen = [...picked].filter(([id, digest]) => requests.some(r => r.id === id && r.digest === digest && UNDECIDED.includes(r.state)));
  const waiting = requests.filter(r => WAITING.includes(r.state)).length;
  return (
    <div className="syft-Inbox-Body" onKeyDown={keys}>
      <div className="syft-Inbox-Side">
        <div className="syft-Row syft-Head">
          <h2>{visible(props.owner)}</h2>
          <span className="syft-Dim">{waiting ? `${waiting} to decide` : 'nothing waits for you'}</span>
          <label><input type="checkbox" checked={all} onChange={() => setAll(!all)} /> also the decided</label>
        </div>
        {chosen.length ? <Bulk chosen={chosen} ask={ask} say={say} done={leave} /> : null}
        <ul ref={list} className="syft-Inbox-List" role="listbox" tabIndex={0} aria-label="requests"
          aria-activedescendant={current ? `syft-request-${current.number}` : undefined}>
          {requests.map((r, i) => (
            <li key={r.id} id={`syft-request-${r.number}`} role="option" aria-selected={i === index} data-request={r.number}
              className={`syft-Item${WAITING.includes(r.state) ? ' syft-mod-wants' : ''}${i === index ? ' syft-mod-current' : ''}`}
              onClick={() => choose(i)}>
              <div className="syft-Row">
                <span className="syft-Pick" aria-hidden="true" onClick={event => { event.stopPropagation(); pick(r); }}>
                  {UNDECIDED.includes(r.state) ? (picked.get(r.id) === r.digest ? '☑' : '☐') : ''}
                </span>
                <span className="syft-Name">{r.number} · {visible(r.analyst)}</span>
                <span className="syft-Dim">{visible(r.says)}</span>
              </div>
              <div className="syft-Two">{visible(r.reason) || 'no reason given'}</div>
            </li>
          ))}
        </ul>
        {requests.length ? null : <p className="syft-Empty syft-Dim">When an analyst files a %%remote cell, it appears here at once, also while a cell runs.</p>}
        <div className="syft-Dim syft-Foot"><kbd>j</kbd> <kbd>k</kbd> move · <kbd>x</kbd> choose · <kbd>a</kbd> approve, then <kbd>Enter</kbd> · <kbd>d</kbd> deny · <kbd>c</kbd> comment</div>
      </div>
      <div className="syft-Inbox-Detail" ref={detail}>
        {current ? <Detail key={current.id} request={current} ask={ask} say={say} languages={props.languages} /> : null}
        {notice}
      </div>
    </div>
  );
}

function Bulk(props: { chosen: [string, string][]; ask: Ask; say: Say; done: (ids: string[]) => void }): JSX.Element {
  const { chosen, ask, say, done } = props;
  const [reason, setReason] = React.useState('');
  return (
    <div className="syft-Acts syft-Bulk" role="group" aria-label="chosen requests">
      <Act main label={`Approve ${chosen.length} chosen`} say={say} done={`${count(chosen.length, 'request')} approved`}
        work={async () => { await ask({ do: 'approve_all', digests: Object.fromEntries(chosen) }); done(chosen.map(([id]) => id)); }} />
      <input className="jp-mod-styled" aria-label="reason for all denials" placeholder="reason for all denials" maxLength={2000}
        value={reason} onChange={event => setReason(event.target.value)} />
      <Act label="Deny them" say={say} done={`${count(chosen.length, 'request')} denied`} work={async () => {
        for (const [id] of chosen) {
          await ask({ do: 'deny', id, reason });
          done([id]);
        }
      }} />
    </div>
  );
}

function Detail(props: { request: IBrief | ICard; ask: Ask; say: Say; languages: IEditorLanguageRegistry }): JSX.Element {
  const { request, ask, say } = props;
  const [fetched, setFetched] = React.useState<ICard | null>(null);
  const [secret, setSecret] = React.useState<IPrivate | null>(null);
  const [seen, setSeen] = React.useState<IPreview | null>(null);
  const [policy, setPolicy] = React.useState('');
  const brief = 'brief' in request;
  const card = brief ? fetched : (request as ICard);
  const entry = brief ? (request as IBrief).entry : JSON.stringify([request.state, (request as ICard).checked]);
  React.useEffect(() => {
    let here = true;
    if (brief) ask({ do: 'card', id: request.id }).then(found => here && setFetched(found), error => here && say(error.message, true));
    return () => { here = false; };
  }, [request.id, entry]);
  React.useEffect(() => {
    let here = true;
    if (card?.checked && UNDECIDED.includes(request.state)) {
      ask({ do: 'private', id: request.id }).then(found => here && setSecret(found), error => here && say(error.message, true));
    }
    return () => { here = false; };
  }, [request.id, request.state, card?.checked]);
  React.useEffect(() => {
    // What is in view for a while counts as seen: the analyst is told.
    if (request.state !== 'filed') return;
    const timer = setTimeout(() => document.visibilityState === 'visible' && void ask({ do: 'seen', id: request.id }).catch(() => undefined), 1500);
    return () => clearTimeout(timer);
  }, [request.id, request.state]);
  if (!card) return <p className="syft-Dim">Asking the kernel…</p>;
  const undecided = UNDECIDED.includes(card.state);
  const params = Object.entries(card.params).map(([k, v]) => `${k} = ${JSON.stringify(v)}`).join(', ');
  const look = async () => { setSeen(await ask({ do: 'preview', id: card.id })); };
  return (
    <article aria-label={`request ${card.number}`} data-request={card.number}>
      <div className="syft-Row syft-Head">
        <h2>Request {card.number} from {visible(card.analyst)}</h2>
        <span className="syft-Badge">{visible(card.says)}</span>
        <span className="syft-Dim">{card.filed.slice(0, 16).replace('T', ' ')}{card.follows ? `, follows ${card.follows}` : ''}</span>
      </div>
      <Decide card={card} seen={seen !== null} ask={ask} say={say} look={look} />
      <Facts pairs={[
        ['reason', card.reason || 'none given'], ['reads', card.datasets.join(', ')], ['returns', card.outputs.join(', ')],
        ['parameters', params], ['approvals', card.approvals], ['decided', undecided ? '' : card.decided], ['told the analyst', card.why],
        ['on the mock', card.behaviour], ['growth', card.growth], ['influence', card.influence]
      ]} />
      {card.hints.length ? (
        <details open>
          <summary>{count(card.hints.length, 'hint')} (found without running it; code can hide from them)</summary>
          <ul>{card.hints.map(h => <li key={h}>{visible(h)}</li>)}</ul>
        </details>
      ) : null}
      <Code card={card} ask={ask} languages={props.languages} />
      {undecided && card.datasets.length ? (
        <section className="syft-Private" aria-label="for you alone">
          {[...(secret?.cohorts ?? []), secret?.influence ?? ''].filter(Boolean).map(line => (
            <div key={line} className={/differs|fewer/.test(line) ? 'syft-Warn' : ''}>{visible(line)}</div>
          ))}
          {policy ? <pre tabIndex={0} aria-label="what the policy says">{visible(policy)}</pre> : null}
          <div className="syft-Acts">
            <Act label="Leave one person out" say={say} done="" title="runs the code on your data without one person, for some people; you alone see what that changed"
              work={async () => {
                say('running it on the data without one person, for some people…');
                await ask({ do: 'drop', id: card.id });
                setSecret(await ask({ do: 'private', id: card.id }));
              }} />
            <Act label="Why not by itself?" say={say} title="what each rule of your policy says of it"
              work={async () => setPolicy(await ask({ do: 'explain', id: card.id }))} />
            <span className="syft-Dim">of real data: you alone see it, and it is not kept</span>
          </div>
        </section>
      ) : null}
      {seen && ['review', 'failed'].includes(card.state) ? <Preview found={seen} /> : null}
      <Talk card={card} ask={ask} say={say} />
      <details>
        <summary>digest and limits</summary>
        <code>{card.digest}</code>
        <div>may take {card.limits}</div>
      </details>
    </article>
  );
}

function Decide(props: { card: ICard; seen: boolean; ask: Ask; say: Say; look: () => Promise<void> }): JSX.Element | null {
  const { card, seen, ask, say, look } = props;
  const [reason, setReason] = React.useState('');
  const n = card.number;
  const deny = (how: string, done: string) => ask({ do: how, id: card.id, reason }).then(() => say(`request ${n} ${done}`), e => say(e.message, true));
  const field = (label: string, how: string, done: string, button: string) => (
    <form className="syft-Acts" onSubmit={event => { event.preventDefault(); void deny(how, done); }}>
      <input className="jp-mod-styled" data-act="deny" aria-label={label} placeholder={label} maxLength={2000} value={reason}
        onChange={event => setReason(event.target.value)} />
      <button type="submit" className="syft-Act">{button}</button>
    </form>
  );
  if (UNDECIDED.includes(card.state)) {
    return (
      <div className="syft-Acts">
        <Act main label={card.approving[0]} name="approve" say={say} done={`request ${n} approved`} title={card.approving[1]}
          work={() => ask({ do: 'approve', id: card.id, digest: card.digest })} />
        {field('reason for a denial', 'deny', 'denied', 'Deny')}
      </div>
    );
  }
  if (card.state === 'review') {
    return (
      <div className="syft-Acts">
        {seen ? null : <Act main label="Look at the result" name="approve" say={say} work={look} />}
        <Act main={seen} label="Release" name={seen ? 'approve' : undefined} disabled={!seen} say={say} done={`request ${n} released`}
          title={seen ? '' : 'look at the result first'} work={() => ask({ do: 'release', id: card.id })} />
        {field('reason (optional)', 'withhold', 'withheld', 'Withhold')}
      </div>
    );
  }
  if (card.state === 'joined') {
    return (
      <div className="syft-Acts">
        <Act label="Leave the federation" say={say} done={`request ${n}: you left the federation`} title="what runs in it ends"
          work={() => ask({ do: 'cancel', id: card.id })} />
      </div>
    );
  }
  if (card.open) {
    return <div className="syft-Acts"><Act label="Cancel" say={say} done={`request ${n} cancelled`} work={() => ask({ do: 'cancel', id: card.id })} /></div>;
  }
  if (card.state === 'failed') {
    return (
      <div className="syft-Acts">
        {seen ? null : <Act label="Show what went wrong" say={say} work={look} />}
        {seen && !card.explained ? (
          <Act label="Release the kind of error and its line" say={say} done={`of request ${n} the kind of error was released`}
            work={() => ask({ do: 'release_error', id: card.id })} />
        ) : null}
      </div>
    );
  }
  return null;
}

function Code(props: { card: ICard; ask: Ask; languages: IEditorLanguageRegistry }): JSX.Element {
  const { card } = props;
  const place = React.useRef<HTMLDivElement>(null);
  const same = card.earlier.near.filter(n => n.same).map(n => `${n.number} (${n.state})`);
  const against = card.earlier.diff.length ? card.earlier.against : null;
  React.useEffect(() => {
    let view: EditorView | null = null;
    let here = true;
    Promise.all([props.ask({ do: 'source', id: card.id }), python(props.languages)]).then(
      ([found, language]: [{ code: string; before: string }, Extension]) => {
        if (here && place.current) view = show(place.current, found.code, against === null ? null : found.before, language, `code of request ${card.number}`);
      },
      () => undefined
    );
    return () => { here = false; view?.destroy(); };
  }, [card.id, card.digest, against]);
  return (
    <section aria-label="code">
      {same.length ? <div><b>The same as</b> {same.length > 1 ? 'requests' : 'request'} {same.join(', ')}</div> : null}
      {against === null ? null : <div className="syft-Dim">what changed since request {against} is marked</div>}
      <div ref={place} className="syft-Code" />
    </section>
  );
}

function Preview({ found }: { found: IPreview }): JSX.Element {
  return (
    <section className="syft-Private" aria-label="the result, for you alone">
      <div className="syft-Dim">What would leave (you alone see this; it is kept nowhere):</div>
      {found.held ? <div className="syft-Warn">Its rule did not let it leave: {visible(found.held)}</div> : null}
      {found.error ? <div className="syft-Warn">It raised {visible(found.error)}</div> : null}
      {found.values.map(v => (
        <div key={v.name}>
          <b>{visible(v.name)}</b> <span className="syft-Dim">{v.kind}{v.shape.length ? ` ${v.shape.join('×')}` : ''}, {v.bytes} bytes</span>
          {v.small ? <span className="syft-Warn"> {v.small} may be {v.small === 1 ? 'a count' : 'counts'} below 3</span> : null}
          <pre tabIndex={0} aria-label={`value of ${visible(v.name)}`}>{visible(v.preview)}</pre>
        </div>
      ))}
      {found.log ? <details><summary>What it printed</summary><pre tabIndex={0}>{visible(found.log)}</pre></details> : null}
    </section>
  );
}

function Talk({ card, ask, say }: { card: ICard; ask: Ask; say: Say }): JSX.Element {
  const [text, setText] = React.useState('');
  const send = (event: React.FormEvent) => {
    event.preventDefault();
    ask({ do: 'comment', id: card.id, text }).then(() => { setText(''); say(''); }, error => say(error.message, true));
  };
  return (
    <section aria-label="comments">
      {card.comments.length ? (
        <ol className="syft-Talk">
          {card.comments.map((c, i) => (
            <li key={i}><b>{visible(c.by)}</b> <span className="syft-Dim">{c.time.slice(0, 16).replace('T', ' ')}</span> {visible(c.text)}</li>
          ))}
        </ol>
      ) : null}
      <form className="syft-Acts" onSubmit={send}>
        <input className="jp-mod-styled" data-act="comment" aria-label="comment, for the analyst and others who decide"
          placeholder="comment, for the analyst and others who decide" maxLength={2000} value={text} onChange={event => setText(event.target.value)} />
        <button type="submit" className="syft-Act">Send</button>
      </form>
    </section>
  );
}

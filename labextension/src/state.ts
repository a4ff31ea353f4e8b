/** What the workbench knows: a line to the kernel of each notebook, which of them is current, and what changed in them. */
import { Signal } from '@lumino/signaling';
import type { ISignal } from '@lumino/signaling';
import { Line } from './protocol.js';
import type { IKernel } from './protocol.js';
import type { IAnalystView, IGauge, IOwnerView, ISession } from './views.js';
import { WAITING } from './views.js';
import { plain, visible } from './text.js';

const AT_ONCE = 3;
const TELL_MS = 500;
const QUIET_MS = 10_000;
const FRAME_MS = 500;

/** Something a person should hear of once. `key` is the same in every window and widget that tells of it. */
export interface INews {
  key: string;
  text: string;
  kind: 'ask' | 'good' | 'bad';
  /** Of a request that waits to be decided: its number, which grows. */
  number?: number;
}

/**
 * Do something once, with the next frame. A page in the background draws none, and a covered window may draw none either,
 * though it says that it is visible: then a timer does it.
 */
export function soon(work: () => void): void {
  const visible = typeof requestAnimationFrame === 'function' && document.visibilityState === 'visible';
  let done = false;
  const once = () => {
    if (done) return;
    done = true;
    clearTimeout(timer);
    work();
  };
  const timer = setTimeout(once, visible ? FRAME_MS : 50);
  if (visible) requestAnimationFrame(once);
}

/** Every notebook's kernel is listened to; what the side panel shows is one of them. */
export class Workbench {
  /** Emitted when what is shown may have changed; many changes at once are told once a frame. */
  get changed(): ISignal<Workbench, void> {
    return this._changed;
  }

  /** Emitted with what a person should hear of. */
  get news(): ISignal<Workbench, INews> {
    return this._news;
  }

  get current(): Line | null {
    return this._current;
  }

  get lines(): Line[] {
    return [...this._lines.values()];
  }

  get analyst(): IAnalystView | null {
    return sound(this._current?.views.get('analyst'));
  }

  get owner(): IOwnerView | null {
    return sound(this._current?.views.get('owner'));
  }

  /** Show the kernel of the notebook that is in front; null for none. */
  follow(kernel: IKernel | null): void {
    this._current = kernel ? this.line(kernel) : null;
    this.touch();
  }

  /** The line to a kernel, made when it is first asked for. */
  line(kernel: IKernel): Line {
    let found = this._lines.get(kernel.id);
    if (found && (found.kernel === kernel || found.kernel.handleComms)) return found;
    found?.dispose();
    found = new Line(kernel);
    this._lines.set(kernel.id, found);
    this._watch(found);
    const line = found;
    line.changed.connect((_, view) => {
      this._hear(line, view);
      this.touch();
    });
    kernel.disposed.connect(() => {
      if (this._lines.get(kernel.id) !== line) return;
      this._lines.delete(kernel.id);
      if (this._current === line) this._current = null;
      this.touch();
    });
    return line;
  }

  /** Have the kernels send a view as well, for as long as somebody shows it. */
  show(view: string): { dispose(): void } {
    this._extra.push(view);
    this.lines.forEach(line => this._watch(line));
    return {
      dispose: () => {
        const at = this._extra.indexOf(view);
        if (at >= 0) this._extra.splice(at, 1);
        this.lines.forEach(line => this._watch(line));
      }
    };
  }

  touch(): void {
    if (this._due) return;
    this._due = true;
    soon(() => {
      this._due = false;
      this._changed.emit();
    });
  }

  private _watch(line: Line): void {
    line.watch([...new Set(['analyst', 'owner', ...this._extra])]);
  }

  private _hear(line: Line, view: string): void {
    const before = this._known.get(line) ?? new Map<string, string>();
    if (view === '' && line.state !== 'open') {
      this._known.delete(line);
      this._top.delete(line);
      return;
    }
    const now = view === 'analyst' ? decisions(line.views.get(view)) : view === 'owner' ? waiting(line.views.get(view)) : null;
    if (!now) return;
    const first = !before.has(view);
    before.set(view, '');
    // Of many that wait the kernel sends the newest: an older one that moves up is no news. Each owner counts from 1.
    const owner = line.views.get('owner')?.name ?? '';
    const last = this._top.get(line);
    const top = last && last.owner === owner ? last.number : 0;
    const fresh = [...now].filter(([key, news]) => !before.has(key) && !(news.number && news.number <= top)).map(([, news]) => news);
    this._top.set(line, { owner, number: Math.max(top, ...[...now.values()].map(news => news.number ?? 0)) });
    for (const key of now.keys()) before.set(key, '');
    this._known.set(line, before);
    if (first || !fresh.length) return;
    this._fresh.push(...fresh);
    this._telling ??= setTimeout(() => this._tell(), TELL_MS);
  }

  /** Tell what came in the meantime; where it is much, as one, and then nothing for a while. */
  private _tell(): void {
    const fresh = this._fresh.splice(0);
    this._telling = null;
    if (fresh.length <= AT_ONCE) return fresh.forEach(news => this._news.emit(news));
    this._news.emit(together(fresh));
    this._telling = setTimeout(() => this._tell(), QUIET_MS);
  }

  private _lines = new Map<string, Line>();
  private _current: Line | null = null;
  private _changed = new Signal<Workbench, void>(this);
  private _news = new Signal<Workbench, INews>(this);
  private _top = new WeakMap<Line, { owner: string; number: number }>();
  private _known = new Map<Line, Map<string, string>>();
  private _extra: string[] = [];
  private _fresh: INews[] = [];
  private _telling: ReturnType<typeof setTimeout> | null = null;
  private _due = false;
}

/** Many at once are told as one. */
function together(news: INews[]): INews {
  const last = news[news.length - 1]!;
  const asks = news.every(n => n.kind === 'ask');
  return { key: last.key, kind: asks ? 'ask' : 'good', text: asks ? `${news.length} requests wait for you` : `${news.length} requests were decided` };
}

function sound<T extends { fault?: string }>(view: T | undefined): T | null {
  return view && !view.fault ? view : null;
}

/** What was decided about one's requests, by key. */
export function decisions(view: IAnalystView | undefined): Map<string, INews> {
  const found = new Map<string, INews>();
  for (const session of view?.sessions ?? []) {
    for (const request of session.requests) {
      if (!request.over) continue;
      const key = `${session.owner} ${request.number} ${request.state}`;
      const why = request.why ? `, ${request.why}` : '';
      const what = request.returns.length ? 'Request' : 'Partnership';
      const text = visible(`${what} ${request.number} at ${session.owner}: ${request.state}${why}`);
      found.set(key, { key, text, kind: ['released', 'joined'].includes(request.state) ? 'good' : 'bad' });
    }
  }
  return found;
}

/** What waits for the owner, by key. */
export function waiting(view: IOwnerView | undefined): Map<string, INews> {
  const found = new Map<string, INews>();
  for (const request of view?.requests ?? []) {
    if (!WAITING.includes(request.state)) continue;
    const ran = request.state === 'review';
    const key = `${request.id} ${ran}`;
    const text = ran
      ? `Request ${request.number} ran: look at its result`
      : `Request ${request.number} from ${request.analyst} waits for you`;
    found.set(key, { key, text: visible(text), kind: 'ask', ...(ran ? {} : { number: request.number }) });
  }
  return found;
}

/** The one line of the status bar, and what it says in full. */
export function status(owner: IOwnerView | null, analyst: IAnalystView | null, code: string): { text: string; title: string } | null {
  const parts: string[] = [];
  const full: string[] = [];
  if (owner?.running) {
    parts.push(owner.waiting ? `${owner.waiting} to decide` : 'nothing to decide');
    full.push(`${owner.name}: ${owner.waiting ? `${owner.waiting} wait for you` : 'nothing waits for you'}`);
  }
  const sessions = analyst?.sessions.filter(s => s.state !== 'closed') ?? [];
  const gauge = gaugeOf(sessions, code);
  if (gauge) {
    parts.push(`ε ${plain(gauge.gauge.left)} left`);
    full.push(`${gauge.gauge.label} at ${gauge.session.owner}: ε ${plain(gauge.gauge.left)} of ${plain(gauge.gauge.cap)} left`);
  }
  const pending = sessions.flatMap(s => s.requests).filter(r => !r.over).length;
  if (pending) {
    parts.push(`${pending} pending`);
    full.push(`${pending} of your requests are pending`);
  }
  const lost = sessions.filter(s => s.state === 'lost').map(s => s.owner);
  if (lost.length) {
    parts.push(`${lost.length} offline`);
    full.push(`no answer from ${lost.join(', ')}`);
  }
  if (sessions.length && !parts.length) parts.push(`${sessions.length} connected`);
  return parts.length ? { text: visible(parts.join(' · ')), title: visible(full.join('\n')) } : null;
}

/** The budget of the dataset that a cell is about: one that its code names, else the one with the least left. */
export function gaugeOf(sessions: ISession[], code: string): { session: ISession; gauge: IGauge } | null {
  const words = new Set(code.match(/[\p{L}_][\p{L}\p{N}_-]*/gu) ?? []);
  const all = sessions.flatMap(session => session.gauges.map(gauge => ({ session, gauge })));
  const named = all.find(({ session, gauge }) =>
    session.datasets.some(d => d.population === gauge.label && (words.has(d.name) || words.has(d.name.replace(/-/g, '_'))))
  );
  return named ?? all.sort((a, b) => a.gauge.left - b.gauge.left)[0] ?? null;
}

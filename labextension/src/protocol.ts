/**
 * The line to one kernel: whole views in, commands out, over a comm that this page opens.
 *
 * The kernel opens a comm of its own when it loads syft_lab, which says that it is there; after a reload of the page the
 * kernel's list of comms says so. A kernel that is busy answers neither; then the line is opened at once, and the kernel's
 * route serves it beside the running cell. Mirrors syft_lab/widgets/side.py.
 */
import { Signal } from '@lumino/signaling';
import type { ISignal } from '@lumino/signaling';

export const TARGET = 'syft_lab';
/** Of what a page and a kernel say to each other; `VERSION` in syft_lab/widgets/side.py is the kernel's. */
export const VERSION = 1;
const SEARCH_MS = 1500;
const OPEN_MS = 4000;
const ANSWER_MS = 20_000;
const RENEW_MS = 30_000;
const LATE =
  'no answer from the kernel within 20 s: it is gone, or an ipykernel that serves clicks only between cells ' +
  '(then use syft-lab requests in a terminal)';
const OLD_PAGE =
  "JupyterLab's Syft Lab is older than this kernel's, so what you see here may be wrong: upgrade syft-lab where JupyterLab runs, " +
  'start JupyterLab again, and reload this page.';
const OLD_KERNEL =
  "This kernel's Syft Lab is older than JupyterLab's, so what you see here may be wrong: upgrade syft-lab in the kernel's " +
  'environment, and restart the kernel.';

/** What is used of a comm; JupyterLab's `Kernel.IComm` is one. */
export interface IComm {
  readonly commId: string;
  open(data?: any): unknown;
  send(data: any): unknown;
  close(): unknown;
  onMsg: (message: any) => void | PromiseLike<void>;
  onClose: (message: any) => void | PromiseLike<void>;
}

/** What is used of a kernel connection; JupyterLab's `Kernel.IKernelConnection` is one. */
export interface IKernel {
  readonly id: string;
  readonly status: string;
  readonly handleComms: boolean;
  readonly info?: Promise<{ language_info: { name: string } }>;
  readonly statusChanged: ISignal<any, string>;
  readonly connectionStatusChanged: ISignal<any, string>;
  readonly disposed: ISignal<any, void>;
  createComm(target: string): IComm;
  registerCommTarget(target: string, callback: (comm: any, message: any) => void): void;
  removeCommTarget(target: string, callback: (comm: any, message: any) => void): void;
  requestCommInfo(content: any): Promise<any>;
}

/** `searching`: nobody knows yet; `none`: the kernel has not loaded syft_lab; `open`; `gone`: the kernel ended. */
export type LineState = 'searching' | 'none' | 'open' | 'gone';

interface IWaiting {
  yes: (value: any) => void;
  no: (error: Error) => void;
  timer: ReturnType<typeof setTimeout>;
}

export class Line {
  constructor(readonly kernel: IKernel) {
    kernel.registerCommTarget(TARGET, this._told);
    kernel.statusChanged.connect(this._status);
    kernel.connectionStatusChanged.connect(this._connected);
    kernel.disposed.connect(this._ended);
    this._renew = setInterval(() => void this._renewed(), RENEW_MS);
    kernel.info?.then(info => {
      this._language = info.language_info.name;
      this._changed.emit('');
    }, () => undefined);
    void this._search();
  }

  /** What the kernel speaks, once it said so. */
  get language(): string {
    return this._language;
  }

  /** Which side is old, and what to do, where page and kernel speak different versions; or ''. */
  get mismatch(): string {
    return this._mismatch;
  }

  /** The views as the kernel sent them last, by name. */
  readonly views = new Map<string, any>();

  get state(): LineState {
    return this._state;
  }

  /** Emitted with the name of a view, or with '' when the state changed. */
  get changed(): ISignal<Line, string> {
    return this._changed;
  }

  /** Say which views are shown; the kernel sends no others. */
  watch(views: string[]): void {
    const same = views.length === this._watched.length && views.every(v => this._watched.includes(v));
    if (same) return;
    this._watched = [...views];
    this._watchNow();
  }

  /** Have the kernel do something; rejects with one clear line. */
  ask(view: string, command: { do: string; [key: string]: unknown }): Promise<any> {
    const comm = this._comm;
    if (!comm) return Promise.reject(new Error('the kernel is not there; start it and load syft_lab'));
    const n = `${++this._count}`;
    return new Promise((yes, no) => {
      const timer = setTimeout(() => {
        this._waiting.delete(n);
        no(new Error(LATE));
      }, ANSWER_MS);
      this._waiting.set(n, { yes, no, timer });
      comm.send({ ...command, view, n });
    });
  }

  dispose(): void {
    if (this._state === 'gone') return;
    this._ended();
    if (this._comm) this._comm.close();
    this._comm = null;
  }

  private _told = (comm: IComm): void => {
    comm.onMsg = () => undefined;
    if (!this._comm) this._open();
  };

  private _status = (_: unknown, status: string): void => {
    if (status === 'restarting' || status === 'autorestarting' || status === 'starting') {
      // Another page may have restarted it: then all that is heard here is that it starts.
      this._drop('the kernel restarted');
      this._set('searching');
      this._again = true;
      clearTimeout(this._late); // it may have been idle already when it said that it starts
      this._late = setTimeout(() => void this._search(), OPEN_MS);
    } else if (status === 'dead') {
      clearTimeout(this._late);
      this._drop('the kernel ended');
      this._set('gone');
    } else if (status === 'idle' && this._again) {
      this._again = false;
      clearTimeout(this._late);
      void this._search();
    }
  };

  /** The connection broke and is back: what was on its way meanwhile may be lost. */
  private _connected = (_: unknown, status: string): void => {
    if (status === 'connected' && this._state === 'open') this._watchNow();
  };

  private _ended = (): void => {
    clearInterval(this._renew);
    clearTimeout(this._late);
    this._fail('the kernel ended');
    this.kernel.statusChanged.disconnect(this._status);
    this.kernel.connectionStatusChanged.disconnect(this._connected);
    this.kernel.disposed.disconnect(this._ended);
    this._forget();
    this._set('gone');
    Signal.clearData(this);
  };

  private async _search(): Promise<void> {
    if (!this.kernel.handleComms) {
      this._set('none');
      return;
    }
    let timer: ReturnType<typeof setTimeout> | undefined;
    const late = new Promise<null>(done => {
      timer = setTimeout(() => done(null), SEARCH_MS);
    });
    const info = this.kernel.requestCommInfo({ target_name: TARGET }).catch(() => null);
    const found = await Promise.race([info, late]);
    clearTimeout(timer);
    if (this._comm || this._state === 'gone') return;
    const comms = found?.content?.comms ?? {};
    const there = Object.values(comms).some((c: any) => c?.target_name === TARGET);
    if (there || found === null) this._open();
    else this._set('none');
  }

  private _open(): void {
    const comm = this.kernel.createComm(TARGET);
    this._comm = comm;
    comm.onMsg = message => this._heard(comm, message.content.data);
    comm.onClose = () => {
      if (this._comm !== comm) return;
      const served = this._state === 'open';
      this._drop('the kernel closed the line');
      // One that was open is closed where this page said nothing for long: the machine slept.
      this._set(served ? 'searching' : 'none');
      if (served) void this._search();
    };
    comm.open({});
    this._watchNow();
    this._expect(comm);
  }

  /** A kernel that was just starting loses what it was sent: ask again, unless it is busy and will answer later. */
  private _expect(comm: IComm): void {
    clearTimeout(this._late);
    this._late = setTimeout(() => {
      if (comm !== this._comm || this._state !== 'searching') return;
      if (this.kernel.status === 'busy') return this._expect(comm);
      this._comm = null;
      void this._search();
    }, OPEN_MS);
  }

  private _heard(comm: IComm, data: any): void {
    if (comm !== this._comm || this._state === 'gone') return;
    if (typeof data?.version === 'number') this._compare(data.version);
    if (this._state !== 'open') this._set('open');
    if (typeof data?.view === 'string') {
      this.views.set(data.view, data.state);
      this._has.set(data.view, data.turn);
      this._changed.emit(data.view);
      return;
    }
    const waiting = this._waiting.get(data?.reply);
    if (!waiting) return;
    this._waiting.delete(data.reply);
    clearTimeout(waiting.timer);
    if ('error' in data) waiting.no(new Error(data.error));
    else waiting.yes(data.ok);
  }

  private _compare(version: number): void {
    const text = version === VERSION ? '' : version > VERSION ? OLD_PAGE : OLD_KERNEL;
    if (text === this._mismatch) return;
    this._mismatch = text;
    this._changed.emit('');
  }

  /** Say once more what is watched, and what was heard of it. A kernel that is idle and does not answer was restarted behind our back. */
  private async _renewed(): Promise<void> {
    const comm = this._comm;
    if (!comm || this._state !== 'open') return;
    try {
      await this.ask('', this._watching());
    } catch {
      if (comm !== this._comm || this.kernel.status === 'busy') return;
      this._drop('the kernel does not answer');
      this._set('searching');
      void this._search();
    }
  }

  private _watchNow(): void {
    if (this._comm && this._state !== 'gone') this._comm.send(this._watching());
  }

  private _watching(): { do: string; views: string[]; has: { [view: string]: number } } {
    return { do: 'watch', views: this._watched, has: Object.fromEntries(this._has) };
  }

  private _drop(why: string): void {
    this._comm = null;
    this._fail(why);
    this._forget();
  }

  private _forget(): void {
    this.views.clear();
    this._has.clear();
  }

  private _fail(why: string): void {
    for (const { no, timer } of this._waiting.values()) {
      clearTimeout(timer);
      no(new Error(why));
    }
    this._waiting.clear();
  }

  private _set(state: LineState): void {
    this._state = state;
    this._changed.emit('');
  }

  private _language = '';
  private _mismatch = '';
  private _state: LineState = 'searching';
  private _changed = new Signal<Line, string>(this);
  private _comm: IComm | null = null;
  private _watched: string[] = [];
  private _has = new Map<string, number>(); // view → the number of the sending that was heard last
  private _waiting = new Map<string, IWaiting>();
  private _count = 0;
  private _again = false;
  private _late: ReturnType<typeof setTimeout> | undefined;
  private _renew: ReturnType<typeof setInterval>;
}

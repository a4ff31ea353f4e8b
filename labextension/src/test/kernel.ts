import assert from 'node:assert/strict';
import { Signal } from '@lumino/signaling';
import { TARGET } from '../protocol.js';
import type { IComm, IKernel } from '../protocol.js';

/** A kernel's side of the wire, in this process: comms that remember what was sent. The real one is in the tests in the browser. */
export class Comm implements IComm {
  constructor(readonly commId: string) {}
  sent: any[] = [];
  opened = false;
  closed = false;
  onMsg: (message: any) => void = () => undefined;
  onClose: (message: any) => void = () => undefined;
  open(): void { this.opened = true; }
  send(data: any): void { this.sent.push(data); }
  close(): void { this.closed = true; }
  say(data: any): void { this.onMsg({ content: { data } }); }
}

export class Kernel implements IKernel {
  constructor(readonly loaded: boolean | null, readonly id = 'k') {}
  status = 'idle';
  handleComms = true;
  info?: Promise<{ language_info: { name: string } }>;
  statusChanged = new Signal<Kernel, string>(this);
  connectionStatusChanged = new Signal<Kernel, string>(this);
  disposed = new Signal<Kernel, void>(this);
  comms: Comm[] = [];
  told: ((comm: any, message: any) => void) | null = null;
  createComm(target: string): Comm {
    assert.equal(target, TARGET);
    const comm = new Comm(`c${this.comms.length}`);
    this.comms.push(comm);
    return comm;
  }
  registerCommTarget(_: string, callback: any): void { this.told = callback; }
  removeCommTarget(): void { this.told = null; }
  requestCommInfo(): Promise<any> {
    if (this.loaded === null) return new Promise(() => undefined);
    return Promise.resolve({ content: { comms: this.loaded ? { x: { target_name: TARGET } } : {} } });
  }
  get last(): Comm { return this.comms[this.comms.length - 1]!; }
}

export const settled = () => new Promise<void>(done => setTimeout(done, 1));

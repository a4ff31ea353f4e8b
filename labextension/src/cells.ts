/** `%%remote` cells in the notebook: a strip in the colour of their owner, and a line that says whose they are and how far. */
import type { Cell, CodeCell } from '@jupyterlab/cells';
import type { NotebookPanel } from '@jupyterlab/notebook';
import { ownerOf } from './remote.js';
import { soon } from './state.js';
import type { Workbench } from './state.js';
import type { IMine, ISession } from './views.js';
import { hue, visible } from './text.js';

/** Which request a cell's output is about: the kernel says so in the output's metadata. */
function requestOf(cell: Cell): { owner: string; number: number } | null {
  const outputs = (cell as CodeCell).model.outputs;
  for (let i = (outputs?.length ?? 0) - 1; i >= 0; i--) {
    const said = outputs.get(i).metadata?.['syft_lab'] as any;
    if (said && typeof said.number === 'number') return { owner: String(said.owner), number: said.number };
  }
  return null;
}

function words(session: ISession | undefined, request: IMine | undefined, name: string): string {
  if (!session) return `${name || 'no owner named'} · not connected here`;
  const state = request ? `request ${request.number}, ${request.says}` : 'not filed';
  return `${session.owner} · ${state} · exact values, by the owner's approval`;
}

/** Keeps the cells of one notebook marked, until it is closed. */
export function mark(panel: NotebookPanel, bench: Workbench, wanted: () => boolean): void {
  let due = false;
  const draw = () => {
    due = false;
    if (panel.isDisposed) return;
    const kernel = panel.sessionContext.session?.kernel;
    const view = kernel ? bench.line(kernel).views.get('analyst') : undefined;
    const sessions: ISession[] = view?.sessions ?? [];
    for (const cell of panel.content.widgets) one(cell, sessions, wanted());
  };
  const touch = () => {
    if (due) return;
    due = true;
    soon(draw);
  };
  panel.content.modelContentChanged.connect(touch);
  panel.content.activeCellChanged.connect(touch);
  bench.changed.connect(touch);
  panel.disposed.connect(() => bench.changed.disconnect(touch));
  touch();
}

function one(cell: Cell, sessions: ISession[], wanted: boolean): void {
  const name = wanted && cell.model.type === 'code' ? ownerOf(cell.model.sharedModel.getSource().slice(0, 400)) : null;
  let tag = cell.node.querySelector<HTMLElement>(':scope > .syft-Tag');
  if (name === null) {
    tag?.remove();
    cell.node.classList.remove('syft-Remote');
    return;
  }
  const said = requestOf(cell);
  const session = sessions.find(s => s.name === name) ?? sessions.find(s => s.owner === name);
  const request = said && session && said.owner === session.owner ? session.requests.find(r => r.number === said.number) : undefined;
  const text = visible(words(session, request, name));
  if (!tag) {
    tag = document.createElement('div');
    tag.className = 'syft-Tag';
    tag.setAttribute('role', 'note');
  }
  if (cell.node.firstElementChild !== tag) cell.node.prepend(tag); // a cell may be put together later than it is marked
  if (tag.textContent !== text) tag.textContent = text;
  cell.node.classList.add('syft-Remote');
  cell.node.style.setProperty('--syft-hue', String(hue(session?.fingerprint ?? name)));
}

/** `%%remote` cells as text: which owner they name, and how a plain cell becomes one. */
import type { ISession } from './views.js';
import { variable } from './text.js';

/** The owner that a cell's first line names; null where it is no `%%remote` cell. */
export function ownerOf(source: string): string | null {
  const found = /^\s*%%remote(?![\p{L}\p{N}_])(?:[ \t]+(\S+))?/u.exec(source);
  return found ? found[1] ?? '' : null;
}

/** Names that a cell assigns at its top level, in order. */
export function assigned(code: string): string[] {
  const found: string[] = [];
  for (const line of code.split('\n')) {
    const match = /^([\p{L}_][\p{L}\p{N}_]*(?:\s*,\s*[\p{L}_][\p{L}\p{N}_]*)*)\s*=(?!=)/u.exec(line);
    for (const name of match?.[1]?.split(',') ?? []) if (!found.includes(name.trim())) found.push(name.trim());
  }
  return found;
}

/** A plain cell as a `%%remote` cell of a connected owner: reads the datasets that it names, returns what it assigned last. */
export function toRemote(source: string, sessions: ISession[]): string {
  const words = new Set(source.match(/[\p{L}_][\p{L}\p{N}_]*/gu) ?? []);
  const reads = (s: ISession) => s.datasets.map(d => d.name).filter(d => words.has(d) || words.has(variable(d)));
  const session = sessions.find(s => reads(s).length) ?? sessions[0];
  const use = session ? reads(session) : [];
  const returns = assigned(source).slice(-1);
  const first = [
    '%%remote', session?.name ?? 'OWNER',
    '--use', ...(use.length ? use : [session?.datasets[0]?.name ?? 'DATASET']),
    '--return', ...(returns.length ? returns : ['NAME']),
    '--reason ""'
  ];
  return `${first.join(' ')}\n${source}`;
}

/** A `%%remote` cell as a plain one. */
export function toPlain(source: string): string {
  return source.replace(/^\s*%%remote[^\n]*\n?/, '');
}

/** A `%%remote` cell that runs on the mock alone. */
export function onMock(source: string): string {
  return source.replace(/^(\s*%%remote[^\n]*)/, '$1 --dry-run');
}

/** The code that gets a dataset, for the notebook of its session. */
export function getting(session: ISession, dataset: string, columns: { name: string }[], tensor: boolean): string {
  const name = variable(dataset);
  const look = tensor ? name : `${name}.mock.head()`;
  return `${name} = ${session.name}[${JSON.stringify(dataset)}]\n${columns.length || tensor ? look : name}`;
}

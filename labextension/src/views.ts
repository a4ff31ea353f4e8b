/** What the kernel's views hold: see syft_lab/kernel/panels.py and syft_lab/analyst/overview.py. */

export interface IGauge {
  label: string;
  cap: number;
  spent: number;
  reserved: number;
  left: number;
  note: string;
  next?: number;
}

export interface IColumn {
  name: string;
  kind: string;
  bounds: [number, number] | null;
  categories: (string | number)[] | null;
}

export interface IDataset {
  name: string;
  version: number;
  population: string;
  description: string;
  tags: string[];
  privacy_unit: string;
  rows: number | null;
  columns: IColumn[];
  tensor: { shape: number[]; dtype: string; bounds: [number, number] } | null;
  cap?: number | null;
}

/** A request as its analyst sees it. */
export interface IMine {
  number: number;
  state: string;
  says: string;
  why: string;
  error: string;
  reason: string;
  returns: string[];
  over: boolean;
  filed: string;
  comments: number;
}

export interface ISession {
  name: string;
  owner: string;
  fingerprint: string;
  state: 'connected' | 'lost' | 'closed';
  why: string;
  latency: number | null;
  isolation: string;
  role: string;
  analyst: string;
  warning: string;
  datasets: IDataset[];
  gauges: IGauge[];
  requests: IMine[];
}

export interface IPointer {
  name: string;
  kind: 'table' | 'column' | 'tensor' | 'plan';
  owner: string;
  label: string;
  bytes: number | null;
  about: string;
}

export interface IAnalystView {
  sessions: ISession[];
  pointers: IPointer[];
  fault?: string;
}

/** A request as its owner sees its first line. */
export interface IBrief {
  id: string;
  number: number;
  analyst: string;
  digest: string;
  state: string;
  says: string;
  reason: string;
  open: boolean;
  entry: string;
}

export interface IOwnerView {
  name: string;
  running: boolean;
  address: string;
  fingerprint: string;
  isolation: string;
  device: string;
  warning: string;
  datasets: IDataset[];
  analysts: { name: string; role: string; datasets: string[]; fingerprint: string; heard: number | null }[];
  requests: IBrief[];
  waiting: number;
  gauges: IGauge[];
  events: [string, string][];
  fault?: string;
}

/** Everything about a request that its owner may see without looking at the data. */
export interface ICard extends Omit<IBrief, 'entry'> {
  why: string;
  filed: string;
  datasets: string[];
  outputs: string[];
  params: Record<string, unknown>;
  checked: boolean;
  explained: boolean;
  approving: [string, string];
  follows: number | null;
  comments: { by: string; time: string; text: string }[];
  earlier: { against: number | null; diff: string[]; near: { number: number; state: string; same: boolean; ratio: number }[] };
  hints: string[];
  decided: string;
  approvals: string;
  influence: string;
  growth: string;
  limits: string;
  behaviour: string;
}

export const UNDECIDED = ['filed', 'seen', 'partly'];
export const WAITING = [...UNDECIDED, 'review'];

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Workbench, decisions, gaugeOf, soon, status, waiting } from '../state.js';
import type { INews } from '../state.js';
import { Kernel, settled } from './kernel.js';

(globalThis as any).document = { visibilityState: 'hidden' };

const gauge = (label: string, left: number) => ({ label, cap: 3, spent: 3 - left, reserved: 0, left, note: '' });
const dataset = (name: string, population: string) =>
  ({ name, version: 1, population, description: '', tags: [], privacy_unit: 'row', rows: null, columns: [], tensor: null });
const session = (over: object = {}): any => ({
  name: 'hospital_a', owner: 'hospital-a', fingerprint: 'ab', state: 'connected', why: '', latency: 1, isolation: 'L2', role: 'analyst',
  analyst: 'alice', warning: '', datasets: [dataset('patients', 'clinic'), dataset('scans', 'lab')],
  gauges: [gauge('clinic', 2), gauge('lab', 0.5)], requests: [], ...over
});
const mine = (number: number, state: string, over: boolean, why = '') =>
  ({ number, state, says: state, why, error: '', reason: '', returns: ['x'], over, filed: '', comments: 0 });
const told = () => new Promise(done => setTimeout(done, 600));
const brief = (id: string, state: string, number = 1): any => ({ id, number, analyst: 'alice', state, reason: '', open: true });

test('the status bar tells of the dataset that the cell names, else of the one with the least left', () => {
  assert.equal(gaugeOf([session()], 'x = patients.age.mean()')!.gauge.label, 'clinic');
  assert.equal(gaugeOf([session()], 'print(1)')!.gauge.label, 'lab');
  assert.equal(gaugeOf([], 'x'), null);
  const analyst = { sessions: [session({ requests: [mine(1, 'filed', false)] })], pointers: [] };
  assert.equal(status(null, analyst, 'patients')!.text, 'ε 2 left · 1 pending');
  assert.equal(status(null, { sessions: [], pointers: [] }, ''), null);
  assert.equal(status({ running: true, waiting: 3, name: 'h' } as any, null, '')!.text, '3 to decide');
});

test('decisions and requests that wait have keys that do not change', () => {
  const found = decisions({ sessions: [session({ requests: [mine(7, 'denied', true, 'too\u202e small'), mine(8, 'filed', false)] })], pointers: [] });
  assert.deepEqual([...found.keys()], ['hospital-a 7 denied']);
  assert.equal(found.get('hospital-a 7 denied')!.text, 'Request 7 at hospital-a: denied, too\\u{202e} small');
  const left = decisions({ sessions: [session({ requests: [{ ...mine(3, 'left', true), returns: [] }] })], pointers: [] });
  assert.equal([...left.values()][0]!.text, 'Partnership 3 at hospital-a: left');
  const wait = waiting({ requests: [brief('a', 'filed'), brief('b', 'review'), brief('c', 'released')] } as any);
  assert.deepEqual([...wait.keys()], ['a false', 'b true']);
});

test('a person hears of what is new, not of what was there when the page was opened', async () => {
  const bench = new Workbench();
  const kernel = new Kernel(true, 'one');
  bench.follow(kernel);
  await settled();
  const heard: INews[] = [];
  bench.news.connect((_, news) => heard.push(news));
  const say = (requests: any[]) => kernel.last.say({ view: 'analyst', state: { sessions: [session({ requests })], pointers: [] } });
  say([mine(1, 'released', true)]);
  assert.equal(heard.length, 0);
  say([mine(1, 'released', true), mine(2, 'denied', true, 'no')]);
  say([mine(1, 'released', true), mine(2, 'denied', true, 'no')]);
  await told();
  assert.deepEqual(heard.map(n => n.key), ['hospital-a 2 denied']);
  kernel.disposed.emit();
  assert.equal(bench.current, null);
});

test('many at once are told as one', async () => {
  const bench = new Workbench();
  const kernel = new Kernel(true, 'burst');
  bench.follow(kernel);
  await settled();
  const heard: INews[] = [];
  bench.news.connect((_, news) => heard.push(news));
  const say = (n: number) => kernel.last.say({ view: 'owner', state: { requests: Array.from({ length: n }, (_, i) => brief(`r${i}`, 'filed', i + 1)) } });
  say(0);
  for (let n = 5; n <= 500; n += 5) say(n);
  await told();
  say(501);
  await told();
  assert.deepEqual(heard.map(n => n.text), ['500 requests wait for you']);
  kernel.disposed.emit();
});

test('an older request that moves into view is no news; a newer one is', async () => {
  const bench = new Workbench();
  const kernel = new Kernel(true, 'moves');
  bench.follow(kernel);
  await settled();
  const heard: INews[] = [];
  bench.news.connect((_, news) => heard.push(news));
  const say = (name: string, ...numbers: number[]) =>
    kernel.last.say({ view: 'owner', state: { name, requests: numbers.map(n => brief(`${name}${n}`, 'filed', n)) } });
  say('a', 9, 8);
  say('a', 9, 7);
  say('a', 10, 9);
  await told();
  assert.deepEqual(heard.map(n => n.key), ['a10 false']);
  say('b');
  say('b', 1); // another owner in the same kernel counts from 1
  await told();
  assert.deepEqual(heard.map(n => n.key), ['a10 false', 'b1 false']);
  kernel.disposed.emit();
});

test('views that are shown for a while are watched for that while, in every kernel', async () => {
  const bench = new Workbench();
  const kernels = [new Kernel(true, 'one'), new Kernel(true, 'two')];
  kernels.forEach(k => bench.line(k));
  bench.follow(kernels[1]!);
  await settled();
  const shown = bench.show('inbox');
  for (const kernel of kernels) assert.ok(kernel.last.sent.at(-1).views.includes('inbox'));
  shown.dispose();
  for (const kernel of kernels) assert.ok(!kernel.last.sent.at(-1).views.includes('inbox'));
  assert.equal(bench.current!.kernel.id, 'two');
  kernels.forEach(k => k.disposed.emit());
});

test('a thousand events are told a few times', async () => {
  const bench = new Workbench();
  const kernel = new Kernel(true, 'many');
  bench.follow(kernel);
  await settled();
  let told = 0;
  bench.changed.connect(() => { told += 1; });
  for (let i = 0; i < 1000; i++) kernel.last.say({ view: 'owner', state: { name: 'h', running: true, requests: [], events: [[`${i}`, 'x']] } });
  await new Promise(done => setTimeout(done, 120));
  assert.ok(told >= 1 && told <= 3, `${told}`);
  assert.equal(bench.owner!.events[0]![0], '999');
  kernel.disposed.emit();
});

test('what waits for a frame is done once, and also where no frame comes', async () => {
  const page = (globalThis as any).document;
  page.visibilityState = 'visible';
  let frame = () => undefined as void;
  (globalThis as any).requestAnimationFrame = (work: () => void) => {
    frame = work;
  };
  try {
    let done = 0;
    soon(() => done++);
    await told(); // a covered window: no frame came
    assert.equal(done, 1);
    frame();
    assert.equal(done, 1);
    soon(() => done++);
    frame();
    assert.equal(done, 2);
    await told();
    assert.equal(done, 2);
  } finally {
    page.visibilityState = 'hidden';
    delete (globalThis as any).requestAnimationFrame;
  }
});

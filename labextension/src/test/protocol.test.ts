import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Line, VERSION } from '../protocol.js';
import { Comm, Kernel, settled } from './kernel.js';

test('a line opens where the kernel has loaded syft_lab, and says what it watches', async () => {
  const kernel = new Kernel(true);
  const line = new Line(kernel);
  line.watch(['owner']);
  await settled();
  assert.ok(kernel.last.opened);
  assert.deepEqual(kernel.last.sent, [{ do: 'watch', views: ['owner'], has: {} }]);
  line.watch(['owner']);
  assert.equal(kernel.last.sent.length, 1);
  kernel.last.say({ version: 1 });
  assert.equal(line.state, 'open');
  line.dispose();
});

test('where page and kernel speak different versions, it is said which side is old', async () => {
  const kernel = new Kernel(true);
  const line = new Line(kernel);
  await settled();
  kernel.last.say({ version: VERSION });
  assert.equal(line.mismatch, '');
  kernel.last.say({ version: VERSION + 1 });
  assert.match(line.mismatch, /^JupyterLab's Syft Lab is older .* upgrade syft-lab where JupyterLab runs/);
  kernel.last.say({ version: VERSION - 1 });
  assert.match(line.mismatch, /^This kernel's Syft Lab is older .* upgrade syft-lab in the kernel's environment/);
  line.dispose();
});

test('a kernel says what it speaks, and one that never does is taken as it is', async () => {
  const kernel = new Kernel(false);
  kernel.info = Promise.resolve({ language_info: { name: 'R' } });
  const line = new Line(kernel);
  await settled();
  assert.equal(line.language, 'R');
  line.dispose();
  kernel.info = Promise.reject(new Error('it ended'));
  const other = new Line(kernel);
  await settled();
  assert.equal(other.language, '');
  other.dispose();
});

test('a kernel without syft_lab gets no comm, until it says that it has loaded it', async () => {
  const kernel = new Kernel(false);
  const line = new Line(kernel);
  await settled();
  assert.equal(line.state, 'none');
  assert.equal(kernel.comms.length, 0);
  kernel.told!(new Comm('theirs'), {});
  assert.equal(kernel.comms.length, 1);
  line.dispose();
});

test('a kernel that is busy gets a comm at once', async t => {
  t.mock.timers.enable({ apis: ['setTimeout'] });
  const kernel = new Kernel(null);
  const line = new Line(kernel);
  t.mock.timers.tick(1600);
  await Promise.resolve().then(() => undefined).then(() => undefined);
  t.mock.timers.reset();
  await settled();
  assert.equal(kernel.comms.length, 1);
  line.dispose();
});

test('views are kept whole, and each change is told', async () => {
  const kernel = new Kernel(true);
  const line = new Line(kernel);
  await settled();
  const heard: string[] = [];
  line.changed.connect((_, view) => heard.push(view));
  kernel.last.say({ view: 'owner', state: { name: 'a' } });
  kernel.last.say({ view: 'owner', state: { name: 'b' } });
  assert.deepEqual(heard, ['', 'owner', 'owner']);
  assert.deepEqual(line.views.get('owner'), { name: 'b' });
  line.dispose();
});

test('commands are answered in any order, or fail with what the kernel says', async () => {
  const kernel = new Kernel(true);
  const line = new Line(kernel);
  await settled();
  const first = line.ask('inbox', { do: 'approve', id: '1' });
  const second = line.ask('inbox', { do: 'deny', id: '2' });
  const [a, b] = kernel.last.sent.slice(-2);
  assert.equal(a.view, 'inbox');
  kernel.last.say({ reply: b.n, error: 'give a reason' });
  kernel.last.say({ reply: a.n, ok: 7 });
  kernel.last.say({ reply: 'no such', ok: 1 });
  assert.equal(await first, 7);
  await assert.rejects(second, /give a reason/);
  line.dispose();
});

test('a kernel that does not answer is said to be late', async t => {
  const kernel = new Kernel(true);
  const line = new Line(kernel);
  await settled();
  t.mock.timers.enable({ apis: ['setTimeout'] });
  const asked = line.ask('owner', { do: 'verify' });
  t.mock.timers.tick(20_001);
  await assert.rejects(asked, /no answer from the kernel within 20 s/);
  line.dispose();
});

test('a restart fails what waits, forgets the views, and searches again when the kernel is idle', async () => {
  const kernel = new Kernel(true);
  const line = new Line(kernel);
  await settled();
  kernel.last.say({ view: 'owner', state: {} });
  const asked = line.ask('owner', { do: 'verify' });
  kernel.statusChanged.emit('restarting');
  await assert.rejects(asked, /restarted/);
  assert.equal(line.state, 'searching');
  assert.equal(line.views.size, 0);
  kernel.statusChanged.emit('idle');
  await settled();
  assert.equal(kernel.comms.length, 2);
  kernel.comms[0]!.say({ view: 'owner', state: {} });
  assert.equal(line.views.size, 0, 'what an old comm says is not believed');
  line.dispose();
});

test('a kernel that was idle before it said that it starts is searched all the same', async t => {
  const kernel = new Kernel(true);
  const line = new Line(kernel);
  await settled();
  t.mock.timers.enable({ apis: ['setTimeout'] });
  kernel.statusChanged.emit('restarting');
  kernel.statusChanged.emit('idle');
  kernel.statusChanged.emit('starting');
  t.mock.timers.tick(4001);
  t.mock.timers.reset();
  await settled();
  await settled();
  assert.equal(kernel.comms.length, 2);
  line.dispose();
});

test('a kernel that closes the comm has no syft_lab; one that dies is gone', async () => {
  const kernel = new Kernel(true);
  const line = new Line(kernel);
  await settled();
  kernel.last.onClose({});
  assert.equal(line.state, 'none');
  await assert.rejects(line.ask('owner', { do: 'verify' }), /not there/);
  kernel.statusChanged.emit('dead');
  assert.equal(line.state, 'gone');
  line.dispose();
});

test('a line that the kernel closed while this page slept is opened again', async () => {
  const kernel = new Kernel(true);
  const line = new Line(kernel);
  line.watch(['owner']);
  await settled();
  kernel.last.say({ version: 1 });
  kernel.last.onClose({});
  assert.equal(line.state, 'searching');
  await settled();
  assert.equal(kernel.comms.length, 2);
  assert.deepEqual(kernel.last.sent, [{ do: 'watch', views: ['owner'], has: {} }]);
  line.dispose();
});

test('after a break of the connection the kernel is told what was heard, and sends the rest again', async () => {
  const kernel = new Kernel(true);
  const line = new Line(kernel);
  line.watch(['owner', 'inbox']);
  await settled();
  kernel.last.say({ view: 'owner', turn: 1, state: {} });
  kernel.last.say({ view: 'inbox', turn: 2, state: {} });
  kernel.last.say({ view: 'owner', turn: 3, state: {} });
  kernel.connectionStatusChanged.emit('connecting');
  assert.equal(kernel.last.sent.length, 1);
  kernel.connectionStatusChanged.emit('connected');
  assert.deepEqual(kernel.last.sent[1], { do: 'watch', views: ['owner', 'inbox'], has: { owner: 3, inbox: 2 } });
  line.dispose();
});

test('a kernel connection without comms is left alone', async () => {
  const kernel = new Kernel(true);
  kernel.handleComms = false;
  const line = new Line(kernel);
  await settled();
  assert.equal(line.state, 'none');
  assert.equal(kernel.comms.length, 0);
  line.dispose();
});

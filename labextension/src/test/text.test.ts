import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ago, bytes, count, hue, moved, plain, variable, visible } from '../text.js';
import { assigned, getting, onMock, ownerOf, toPlain, toRemote } from '../remote.js';

test('what deceives the eye is spelled out', () => {
  assert.equal(visible('a\u202eb\u200bc\x1b[31m'), 'a\\u{202e}b\\u{200b}c\\u{1b}[31m');
  assert.equal(visible('two\nlines\tשלום'), 'two\nlines\tשלום');
  assert.equal(visible(null), '');
});

test('numbers, sizes and ages are short', () => {
  assert.equal(plain(0.1 + 0.2), '0.3');
  assert.equal(bytes(900), '900 B');
  assert.equal(bytes(31_360_000), '29.9 MB');
  assert.equal(ago(1000, 1010), 'now');
  assert.equal(ago(0, 7200), '2 h ago');
  assert.equal(count(1, 'request'), '1 request');
  assert.equal(count(0, 'request'), '0 requests');
});

test('entries that get another place are told from those that come after and those that stay', () => {
  assert.ok(!moved(['a', 'b'], ['a', 'b']));
  assert.ok(!moved(['a', 'b'], ['a', 'b', 'c']));
  assert.ok(!moved(['a', 'b'], ['a']));
  assert.ok(!moved([], ['a']));
  assert.ok(moved(['a', 'b'], ['c', 'a', 'b']));
  assert.ok(moved(['a', 'b'], ['b']));
});

test('an owner has one colour everywhere', () => {
  assert.equal(hue('ab cd'), hue('ab cd'));
  assert.ok(hue('x'.repeat(100)) < 360);
});

test('a cell names its owner on its first line', () => {
  assert.equal(ownerOf('%%remote hospital_a --use patients\nx = 1'), 'hospital_a');
  assert.equal(ownerOf('%%remote'), '');
  assert.equal(ownerOf('x = 1\n%%remote a'), null);
  assert.equal(ownerOf('%%remotely a'), null);
});

const sessions: any[] = [
  { name: 'bank', datasets: [{ name: 'loans' }] },
  { name: 'hospital_a', datasets: [{ name: 'patients' }, { name: 'lab-values' }] }
];

test('a plain cell becomes a remote one, and back', () => {
  const code = 'm = patients.age.mean()\nn, s = lab_values.sum(), 1\nif s == 2:\n    z = 3';
  const made = toRemote(code, sessions);
  assert.equal(made.split('\n')[0], '%%remote hospital_a --use patients lab-values --return s --reason ""');
  assert.equal(toPlain(made), code);
  assert.equal(toRemote('', []).split('\n')[0], '%%remote OWNER --use DATASET --return NAME --reason ""');
  assert.deepEqual(assigned(code), ['m', 'n', 's']);
});

test('a dry run says so on the first line alone', () => {
  assert.equal(onMock('%%remote a --use b\nx = 1'), '%%remote a --use b --dry-run\nx = 1');
});

test('the code that gets a dataset is Python', () => {
  assert.equal(getting(sessions[1], 'lab-values', [{ name: 'x' }], false), 'lab_values = hospital_a["lab-values"]\nlab_values.mock.head()');
  assert.equal(variable('2024-admissions'), '_2024_admissions');
});

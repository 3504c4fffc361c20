import assert from 'node:assert/strict';
import { beforeEach, test } from 'node:test';

import * as contract from '../../dist/contract.gen.js';
import { fresh } from './page.mjs';

const { CLICK_EVENT_TOTAL, CUMULATIVE_LAYOUT_SHIFT, FORM_SUBMISSION_TOTAL } = contract;
const DEFINITIONS = Object.values(contract).filter(({ labels }) => labels);

let registry;
beforeEach(async () => {
  registry = await fresh('registry');
});

const click = (button, page = '/', count = 1) => registry.add(CLICK_EVENT_TOTAL, count, [button, page]);
const total = (points) => points.reduce((sum, { count }) => sum + count, 0);
const valuesFor = ({ labels }) => labels.map(({ members }) => members?.[0] ?? '200');

/** How much each series counted. */
function counts(points) {
  const all = {};
  for (const { definition, values, count } of points) {
    const series = `${definition.name}{${values.join(', ')}}`;
    all[series] = (all[series] ?? 0) + count;
  }
  return all;
}

for (const definition of DEFINITIONS.filter(({ bounds }) => bounds)) {
  const most = definition.bounds.at(-1) * 10;

  test(`${definition.name} is from 0 to ${most}, and nothing beyond`, () => {
    for (const value of [0, most, most * (1 + Number.EPSILON), -Number.EPSILON]) {
      registry.add(definition, value, valuesFor(definition));
    }

    const [point, dropped] = registry.take();

    assert.deepEqual([point.count, point.sum, point.buckets[0], point.buckets.at(-1)], [2, most, 1, 1]);
    assert.deepEqual(counts([dropped]), { 'relay_web_dropped_total{invalid}': 2 });
  });
}

for (const definition of DEFINITIONS) {
  for (const [i, { name, limit, pattern }] of definition.labels.entries()) {
    if (!limit || !pattern.test('name')) continue;

    test(`${name} of ${definition.name} has at most ${limit} values from one page, \`other\` among them`, () => {
      const values = valuesFor(definition);
      const named = (value) => [...values.slice(0, i), value, ...values.slice(i + 1)];
      const points = [];
      for (let n = 0; n < limit + 50; n++) {
        registry.add(definition, 1, named(`name ${n}`));
        points.push(...registry.take());
      }
      registry.add(definition, 1, named('name 0')); // what is known stays known
      points.push(...registry.take());

      const all = counts(points);
      assert.deepEqual(
        [
          Object.keys(all).length,
          total(points),
          all[`${definition.name}{${named('other').join(', ')}}`],
          all[`${definition.name}{${named('name 0').join(', ')}}`],
        ],
        [limit, limit + 51, 51, 2],
      );
    });
  }
}

test('members stay when series collapse, and series that are there already go on', () => {
  for (let n = 0; n < 300; n++) click(`button ${n >> 1}`, `/${n % 2}`);
  click('button 0', '/new');
  click('button 0', '/0');
  registry.add(FORM_SUBMISSION_TOTAL, 1, ['login', 'error']);

  const all = counts(registry.take());

  assert.deepEqual(
    [
      Object.keys(all).length,
      all['click_event_total{other, other}'],
      all['click_event_total{button 0, /0}'],
      all['form_submission_total{other, error}'],
    ],
    [302, 1, 2, 1],
  );
});

test('what is given back beside 300 new series collapses, and the total stays right', () => {
  for (let n = 0; n < 300; n++) click(`button ${n >> 1}`, `/a${n % 2}`);
  const taken = registry.take();
  for (let n = 0; n < 300; n++) click(`button ${n >> 1}`, `/b${n % 2}`);

  registry.giveBack(taken);

  const points = registry.take();
  assert.deepEqual([points.length, total(points)], [301, 600]);
});

test('what is given back to a full point goes on in the next one', () => {
  click('save', '/', 999);
  click('save', '/', 5);
  const taken = registry.take();
  click('save', '/', 998);

  registry.giveBack(taken);

  const points = registry.take();
  assert.deepEqual(counts(points), { 'click_event_total{save, /}': 999 + 5 + 998 });
  assert.ok(points.every(({ count }) => count <= 999));
});

test('what is given back keeps its sum and its buckets', () => {
  registry.add(CUMULATIVE_LAYOUT_SHIFT, 0.1, ['/']);
  const taken = registry.take();
  registry.add(CUMULATIVE_LAYOUT_SHIFT, 2, ['/']);

  registry.giveBack(taken);

  const [{ count, sum, buckets }] = registry.take();
  assert.deepEqual([count, sum, buckets], [2, 2.1, [0, 0, 0, 1, 0, 0, 0, 0, 1, 0]]);
});

test('what was dropped is never given up itself', () => {
  for (let n = 0; n < 500; n++) click('save', '/', 999);
  for (let n = 0; n < 10; n++) registry.drop('rejected', 999);

  assert.equal(counts(registry.take())['relay_web_dropped_total{rejected}'], 9990);
});

test('who watches is told of each measurement, of a later one and of an invalid one too', () => {
  let told = 0;
  registry.watch(() => {
    told += 1;
  });

  click('save');
  registry.later(() => {});
  click('save', '/', Number.NaN);

  assert.equal(told, 3);
});

test('what is to be recorded later is kept when init turns the registry on, which it was before', () => {
  registry.later(() => click('save'));

  registry.turn(true);

  assert.deepEqual(counts(registry.take()), { 'click_event_total{save, /}': 1 });
});

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { CLICK_EVENT_TOTAL, CUMULATIVE_LAYOUT_SHIFT, SESSION_DURATION_SECONDS } from '../../dist/contract.gen.js';
import { dice, fresh } from './page.mjs';

const DROPPED = 'relay_web_dropped_total';

/** Count, sum and buckets of each series. */
function told(points) {
  const all = {};
  for (const { definition, values, count, sum, buckets } of points) {
    const series = `${definition.name}{${values.join(', ')}}`;
    const before = all[series] ?? { count: 0, sum: 0, buckets: buckets.map(() => 0) };
    all[series] = {
      count: before.count + count,
      sum: before.sum + sum,
      buckets: before.buckets.map((each, i) => each + buckets[i]),
    };
  }
  return Object.fromEntries(Object.entries(all).sort());
}

const total = (points) => points.reduce((sum, { count }) => sum + count, 0);

/** Sends are begun, several at once; they arrive, are refused, or come back, in any order. */
async function live(seed) {
  const { below, of, next } = dice(seed);
  const { add, drop, giveBack, later, take } = await fresh('registry');
  const recorded = [];
  const arrived = [];
  const underWay = [];
  let refused = 0;

  function record(definition, value, values) {
    const { bounds } = definition;
    const bucket = bounds && [...bounds, Infinity].findIndex((bound) => value <= bound);
    const buckets = bounds ? [...bounds, Infinity].map((_, i) => +(i === bucket)) : [];
    recorded.push({ definition, values, count: bounds ? 1 : value, sum: value, buckets });
    if (next() < 0.2) later(() => add(definition, value, values));
    else add(definition, value, values);
  }

  for (let step = 0; step < 150; step++) {
    const what = below(10);
    // Quarters, so that sums are exact in any order; and counts that fill a point at once.
    if (what < 3) record(CLICK_EVENT_TOTAL, 1 + below(999), [`name ${below(4)}`, `/${below(4)}`]);
    else if (what < 5) record(CUMULATIVE_LAYOUT_SHIFT, below(81) / 4, [`/${below(4)}`]);
    else if (what < 7) record(SESSION_DURATION_SECONDS, below(4_000) / 4, [of(['anonymous', 'authenticated'])]);
    else if (what < 8) underWay.push(take());
    else if (underWay.length) {
      const [points] = underWay.splice(below(underWay.length), 1);
      const end = below(10);
      if (end < 6) giveBack(points);
      else {
        arrived.push(...points);
        if (end < 7) {
          drop('rejected', total(points));
          refused += total(points);
        }
      }
    }
  }
  return { recorded, refused, arrived: [...arrived, ...underWay.flat(), ...take()] };
}

for (let first = 0; first < 500; first += 100) {
  test(`each series arrives with its count, sum and buckets, in whatever order sends end (seeds ${first} to ${first + 99})`, async () => {
    for (let seed = first; seed < first + 100; seed++) {
      const { recorded, refused, arrived } = await live(seed);

      const dropped = arrived.filter(({ definition }) => definition.name === DROPPED);
      const others = arrived.filter(({ definition }) => definition.name !== DROPPED);
      assert.deepEqual([told(others), total(dropped)], [told(recorded), refused], `seed ${seed}`);
      assert.ok(
        arrived.every(({ count }) => count <= 999),
        `seed ${seed}`,
      );
    }
  });
}

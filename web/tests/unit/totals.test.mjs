import assert from 'node:assert/strict';
import { test } from 'node:test';

import * as contract from '../../dist/contract.gen.js';
import { dice, fresh, freshPackage, openPage, points, settled } from './page.mjs';

const { MOST, RELAY_WEB_DROPPED_TOTAL } = contract;
const DEFINITIONS = Object.values(contract).filter((each) => each.labels && each !== RELAY_WEB_DROPPED_TOTAL);

/** Adds to the totals of a metric: { count, sum }. */
function count(totals, name, many, sum = 0) {
  const one = totals.get(name) ?? { count: 0, sum: 0 };
  totals.set(name, { count: one.count + many, sum: one.sum + sum });
}

for (let seed = 1; seed <= 60; seed++) {
  test(`whatever is recorded, taken, lost, given back and refused: all of it is told once, or told as dropped (seed ${seed})`, async () => {
    const registry = await fresh('registry');
    const { below, of, next } = dice(seed);
    const recorded = new Map();
    const delivered = new Map();
    const underWay = [];
    const names = 1 + below(400); // more than any label's limit, or few
    let invalid = 0;
    let refused = 0;

    for (let step = 0; step < 4_000; step++) {
      const dice = below(100);
      if (dice < 85) {
        const definition = of(DEFINITIONS);
        const values = definition.labels.map(({ members }) => (members ? of(members) : `name ${below(names)}`));
        // Multiples of an eighth: their sums are exact.
        const value = definition.bounds ? below(8 * definition.bounds.at(-1) * 1.2) / 8 : 1 + below(3);
        const record = () => registry.add(definition, value, values);
        if (next() < 0.1) registry.later(record);
        else record();
        count(recorded, definition.name, definition.bounds ? 1 : value, value);
      } else if (dice < 87) {
        registry.add(of(DEFINITIONS), of([-1, Number.NaN, 1e18, undefined]), ['x', 'y', 'z']);
        invalid += 1;
      } else if (dice < 93) {
        underWay.push(registry.take());
      } else if (underWay.length) {
        const [points] = underWay.splice(below(underWay.length), 1);
        const end = below(10);
        if (end < 6) registry.giveBack(points);
        else if (end < 9) arrive(points);
        else {
          const lost = points.reduce((sum, point) => sum + point.count, 0);
          for (const { definition, count: many } of points) {
            if (definition !== RELAY_WEB_DROPPED_TOTAL) refused += many;
          }
          registry.drop('rejected', lost);
        }
      }
    }
    underWay.forEach(registry.giveBack);
    arrive(registry.take());

    function arrive(points) {
      for (const { definition, count: many, sum, buckets } of points) {
        assert.ok(many > 0 && many <= MOST);
        if (definition.bounds)
          assert.equal(
            buckets.reduce((all, each) => all + each, 0),
            many,
          );
        count(delivered, definition.name, many, sum);
      }
    }
    const dropped = delivered.get(RELAY_WEB_DROPPED_TOTAL.name)?.count ?? 0;
    delivered.delete(RELAY_WEB_DROPPED_TOTAL.name);
    const all = (totals) => [...totals.values()].reduce((sum, each) => sum + each.count, 0);

    assert.equal(dropped, refused + invalid);
    assert.equal(all(delivered) + dropped, all(recorded) + invalid);
    if (!refused) assert.deepEqual(new Map([...delivered].sort()), new Map([...recorded].sort()));
  });
}

for (let seed = 1; seed <= 20; seed++) {
  test(`whatever the server answers, the page's totals arrive exactly, or are counted as rejected (seed ${seed})`, async (t) => {
    t.mock.timers.enable({ apis: ['setTimeout', 'Date'], now: 1_795_000_000_000 });
    const { below, of } = dice(seed);
    const delivered = new Map();
    let refused = 0;
    const answer = async (_, { body }) => {
      const got = points(JSON.parse(body));
      const status = of([200, 200, 200, 429, 503, 404, 'network']);
      await settled(); // others are sent meanwhile
      if (status === 'network') throw new TypeError('Failed to fetch');
      for (const { name, count: many, sum } of got) {
        if (status === 200) count(delivered, name, many, sum);
        if (status === 404 && name !== RELAY_WEB_DROPPED_TOTAL.name) refused += many;
      }
      return new Response(null, { status });
    };
    const page = openPage(t, { answers: [answer] });
    const relay = await freshPackage();
    relay.init();
    const recorded = new Map();

    for (let step = 0; step < 2_000; step++) {
      const dice = below(100);
      if (dice < 45) {
        relay.recordButtonClick(`button ${below(60)}`);
        count(recorded, 'click_event_total', 1);
      } else if (dice < 90) {
        const seconds = below(8_000) / 8;
        relay.recordSessionDuration(seconds);
        count(recorded, 'session_duration_seconds', 1, seconds);
      } else if (dice < 95) t.mock.timers.tick(1_000 * below(60));
      else if (dice < 97) page.happens('pagehide');
      else if (dice < 99) await settled();
      else page.happens('online');
    }
    page.answers = [
      (_, { body }) => {
        for (const { name, count: many, sum } of points(JSON.parse(body))) count(delivered, name, many, sum);
        return Promise.resolve(new Response());
      },
    ];
    await relay.flush(); // what was under way comes back
    await relay.flush();
    await relay.shutdown();

    const dropped = delivered.get(RELAY_WEB_DROPPED_TOTAL.name)?.count ?? 0;
    delivered.delete(RELAY_WEB_DROPPED_TOTAL.name);
    const all = (totals) => [...totals.values()].reduce((sum, each) => sum + each.count, 0);
    assert.equal(dropped, refused);
    assert.equal(all(delivered) + dropped, all(recorded));
  });
}

import assert from 'node:assert/strict';
import { beforeEach, test } from 'node:test';

import * as contract from '../../dist/contract.gen.js';
import { fresh } from './page.mjs';

const { CLICK_EVENT_TOTAL, API_CALL_ERRORS_CLIENT_TOTAL, LARGEST_CONTENTFUL_PAINT_SECONDS, MOST } = contract;
const { RELAY_WEB_DROPPED_TOTAL, SESSION_DURATION_SECONDS, WEB_PAGE_LOAD_TIME_SECONDS } = contract;
const LCP = LARGEST_CONTENTFUL_PAINT_SECONDS;

let registry;
beforeEach(async () => {
  registry = await fresh('registry');
});

/** { `metric{label values}`: [count, sum] } of all points, those of one series added up. */
function told(points) {
  const all = {};
  for (const { definition, values, count, sum } of points) {
    const key = `${definition.name}{${values.join(', ')}}`;
    all[key] ??= [0, 0];
    const one = all[key];
    one[0] += count;
    one[1] += sum;
  }
  return all;
}

test('a counter adds up, each set of labels for itself, and a taken count begins anew', () => {
  registry.add(CLICK_EVENT_TOTAL, 1, ['save', '/']);
  registry.add(CLICK_EVENT_TOTAL, 2, ['save', '/']);
  registry.add(CLICK_EVENT_TOTAL, 1, ['save', '/chat']);

  const first = told(registry.take());
  registry.add(CLICK_EVENT_TOTAL, 1, ['save', '/']);

  assert.deepEqual(
    [first, told(registry.take()), registry.take()],
    [
      { 'click_event_total{save, /}': [3, 3], 'click_event_total{save, /chat}': [1, 1] },
      { 'click_event_total{save, /}': [1, 1] },
      [],
    ],
  );
});

test('a value that equals a bound lies in the bucket of that bound, of every histogram', () => {
  for (const definition of Object.values(contract).filter(({ bounds }) => bounds)) {
    const { bounds, labels } = definition;
    const values = labels.map(({ members }) => members?.[0] ?? 'x');
    for (const [i, bound] of bounds.entries()) {
      registry.add(definition, bound, values);
      const [at] = registry.take();
      registry.add(definition, bound * (1 + 1e-12), values);
      const [beyond] = registry.take();
      assert.deepEqual([at.buckets.indexOf(1), beyond.buckets.indexOf(1)], [i, i + 1], `${definition.name} ${bound}`);
    }
  }
});

test('zero lies in the first bucket, and what is beyond all bounds in the last', () => {
  for (const value of [0, 2.5, 2.6, 61]) registry.add(LCP, value, ['/']);

  const [{ buckets, count, sum }] = registry.take();

  assert.deepEqual([buckets, count, sum], [[1, 0, 0, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0, 1], 4, 66.1]);
});

test('what no clock can have measured is counted as invalid, and nothing else of it', () => {
  for (const value of [-0.001, -Infinity, Infinity, NaN, 600.001, 1e18, undefined, null, '5', [5], {}, 5n, true]) {
    registry.add(LCP, value, ['/']);
  }
  registry.add(CLICK_EVENT_TOTAL, MOST + 1, ['save', '/']);
  registry.add(LCP, 600, ['/']); // ten times the highest bound

  assert.deepEqual(told(registry.take()), {
    'relay_web_dropped_total{invalid}': [14, 14],
    'largest_contentful_paint_seconds{/}': [1, 600],
  });
});

test('a label has the values that the contract allows, and `other`', () => {
  for (const page of [
    '/item/[id]',
    'Überblick',
    '',
    'a'.repeat(65),
    '/a?b',
    'a\nb',
    '"',
    '<script>',
    '/a%20b',
    'a'.repeat(64),
  ]) {
    registry.add(LCP, 1, [page]);
  }
  registry.add(WEB_PAGE_LOAD_TIME_SECONDS, 1, ['/', 'watch']);
  for (const status of [404, '404', 'unknown', 0, 99, 600, '4xx']) {
    registry.add(API_CALL_ERRORS_CLIENT_TOTAL, 1, ['/', 'http_4xx', status]);
  }

  assert.deepEqual(told(registry.take()), {
    'largest_contentful_paint_seconds{/item/[id]}': [1, 1],
    'largest_contentful_paint_seconds{Überblick}': [1, 1],
    [`largest_contentful_paint_seconds{${'a'.repeat(64)}}`]: [1, 1],
    'largest_contentful_paint_seconds{other}': [7, 7],
    'web_page_load_time_seconds{/, other}': [1, 1],
    'api_call_errors_client_total{/, http_4xx, 404}': [2, 2],
    'api_call_errors_client_total{/, http_4xx, unknown}': [1, 1],
    'api_call_errors_client_total{/, http_4xx, other}': [4, 4],
  });
});

test('a thousand names of one label are as many as its limit, `other` with the rest of the total among them', () => {
  for (let n = 0; n < 1_000; n++) {
    registry.add(LCP, 1, [`/${n}`]);
    if (n % 20 === 0) registry.take(); // the limit is the page's, not the sending's
  }
  for (let n = 0; n < 1_000; n++) registry.add(LCP, 1, [`/${n}`]);

  const all = told(registry.take());
  const total = Object.values(all).reduce((sum, [count]) => sum + count, 0);

  assert.equal(LCP.labels[0].limit, 200);
  assert.deepEqual(
    [Object.keys(all).length, total, all['largest_contentful_paint_seconds{other}'][0]],
    [200, 1_000 + 19, 801 + 19],
  );
});

test('a page keeps 300 series between two sendings; what is new beyond is counted under `other`, totals kept', () => {
  for (let button = 0; button < 30; button++) {
    for (let page = 0; page < 30; page++) registry.add(CLICK_EVENT_TOTAL, 1, [`b${button}`, `/p${page}`]);
  }
  registry.add(SESSION_DURATION_SECONDS, 5, ['anonymous']); // its label has no limit, and two values
  registry.add(API_CALL_ERRORS_CLIENT_TOTAL, 1, ['/api', 'network', 'unknown']);

  const all = told(registry.take());

  assert.deepEqual(Object.entries(all).slice(300), [
    ['click_event_total{other, other}', [600, 600]],
    ['session_duration_seconds{anonymous}', [1, 5]],
    ['api_call_errors_client_total{other, other, other}', [1, 1]],
  ]);
});

test('a point holds 999 counts, as many as the collector takes; the next point of the series goes on', () => {
  for (let n = 0; n < 2_500; n++) registry.add(LCP, 2, ['/']);

  const points = registry.take();

  assert.deepEqual(points.map(({ count, sum, buckets }) => [count, sum, buckets[6]]).sort(), [
    [502, 1004, 502],
    [999, 1998, 999],
    [999, 1998, 999],
  ]);
});

test('what is given back is counted once more, beside what came since', () => {
  registry.add(LCP, 2, ['/']);
  registry.add(CLICK_EVENT_TOTAL, 5, ['save', '/']);
  const taken = registry.take();
  registry.add(LCP, 3, ['/']);
  registry.add(LCP, 3, ['/chat']);

  registry.giveBack(taken);

  assert.deepEqual(told(registry.take()), {
    'largest_contentful_paint_seconds{/}': [2, 5],
    'largest_contentful_paint_seconds{/chat}': [1, 3],
    'click_event_total{save, /}': [5, 5],
  });
});

test('a loop that records where no server answers is counted as `queue_full`: memory is bounded, totals are kept', () => {
  const loop = 1_200_000;
  for (let n = 0; n < loop; n++) registry.add(CLICK_EVENT_TOTAL, 1, ['save', '/']);

  const points = registry.take();
  const all = told(points);

  assert.deepEqual(Object.keys(all), ['click_event_total{save, /}', 'relay_web_dropped_total{queue_full}']);
  assert.equal(all['click_event_total{save, /}'][0] + all['relay_web_dropped_total{queue_full}'][0], loop);
  assert.equal(points.filter(({ definition }) => definition === CLICK_EVENT_TOTAL).length, 500);
  assert.ok(points.every(({ count }) => count <= MOST));
});

test('what is dropped at once is counted in points of 999', () => {
  registry.drop('rejected', 2_000);

  const points = registry.take();

  assert.deepEqual(points.map(({ definition, values, count }) => [definition, values, count]).sort(), [
    [RELAY_WEB_DROPPED_TOTAL, ['rejected'], 2],
    [RELAY_WEB_DROPPED_TOTAL, ['rejected'], 999],
    [RELAY_WEB_DROPPED_TOTAL, ['rejected'], 999],
  ]);
});

test('a measurement whose page is named later has the name of when it is sent', () => {
  let name = '/item/42';
  registry.later(() => registry.add(LCP, 1, [name]));
  name = '/item/[id]';

  assert.equal(registry.size(), 1);
  assert.deepEqual(told(registry.take()), { 'largest_contentful_paint_seconds{/item/[id]}': [1, 1] });
  assert.equal(registry.size(), 0);
});

test('turned off it counts nothing and forgets what it had; turned on again it counts', () => {
  registry.add(LCP, 1, ['/']);
  registry.later(() => registry.add(LCP, 1, ['/']));
  registry.turn(false);
  registry.add(LCP, 1, ['/']);
  registry.later(() => registry.add(LCP, 1, ['/']));
  registry.drop('error');
  const off = registry.take();
  registry.turn(true);
  registry.add(LCP, 1, ['/chat']);

  assert.deepEqual([off, told(registry.take())], [[], { 'largest_contentful_paint_seconds{/chat}': [1, 1] }]);
});

import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as contract from '../../dist/contract.gen.js';
import { CLICK_EVENT_TOTAL, CUMULATIVE_LAYOUT_SHIFT, WEB_PAGE_LOAD_TIME_SECONDS } from '../../dist/contract.gen.js';
import { encode } from '../../dist/otlp.js';

const NOW = 1_795_000_000_123;
const text = (key, stringValue) => ({ key, value: { stringValue } });

test('a body is OTLP/HTTP JSON: 64 bit numbers are text, and points of one metric stand together', () => {
  const click = { definition: CLICK_EVENT_TOTAL, values: ['save', '/item/[id]'], count: 3, sum: 3, buckets: [] };
  const other = { ...click, values: ['other', 'chat'], count: 999, sum: 999 };
  const shift = {
    definition: CUMULATIVE_LAYOUT_SHIFT,
    values: ['/'],
    count: 2,
    sum: 0.3,
    buckets: [0, 0, 1, 0, 0, 1, 0, 0, 0, 0],
  };

  const bodies = encode([click, shift, other], NOW);

  assert.deepEqual(
    bodies.map(({ text }) => JSON.parse(text)),
    [
      {
        resourceMetrics: [
          {
            scopeMetrics: [
              {
                metrics: [
                  {
                    name: 'click_event_total',
                    unit: '{click}',
                    sum: {
                      aggregationTemporality: 1,
                      isMonotonic: true,
                      dataPoints: [
                        {
                          attributes: [text('button_name', 'save'), text('page_name', '/item/[id]')],
                          timeUnixNano: '1795000000123000000',
                          asInt: '3',
                        },
                        {
                          attributes: [text('button_name', 'other'), text('page_name', 'chat')],
                          timeUnixNano: '1795000000123000000',
                          asInt: '999',
                        },
                      ],
                    },
                  },
                  {
                    name: 'cumulative_layout_shift',
                    unit: '',
                    histogram: {
                      aggregationTemporality: 1,
                      dataPoints: [
                        {
                          attributes: [text('page_name', '/')],
                          timeUnixNano: '1795000000123000000',
                          count: '2',
                          sum: 0.3,
                          bucketCounts: ['0', '0', '1', '0', '0', '1', '0', '0', '0', '0'],
                          explicitBounds: [0.01, 0.025, 0.05, 0.1, 0.15, 0.25, 0.5, 1, 2],
                        },
                      ],
                    },
                  },
                ],
              },
            ],
          },
        ],
      },
    ],
  );
});

test('nothing is no body', () => {
  assert.deepEqual(encode([], NOW), []);
});

test('many points are several bodies, each with the points that it tells of', () => {
  const all = Array.from({ length: 100 }, (_, n) => ({
    definition: WEB_PAGE_LOAD_TIME_SECONDS,
    values: [`/page/${n}`, 'desktop'],
    count: 1,
    sum: 0.5,
    buckets: [0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
  }));

  const bodies = encode(all, NOW);

  assert.deepEqual(
    bodies.flatMap(({ points }) => points),
    all,
  );
  assert.deepEqual(
    bodies.map(({ points }) => points.length),
    [45, 45, 10],
  );
});

test('the largest points that there can be make bodies that the collector and fetch(keepalive) take', () => {
  const letter = '\u{20000}'; // four bytes, and a letter: the longest that a name may be made of
  assert.match(letter, /^\p{L}$/u);
  for (const definition of Object.values(contract).filter(({ labels }) => labels)) {
    const all = Array.from({ length: 45 }, () => ({
      definition,
      values: definition.labels.map(({ members }) => members?.at(-1) ?? letter.repeat(64)),
      count: 999,
      sum: 0.1 + 0.2 + 99_999,
      buckets: (definition.bounds ?? []).concat(0).map(() => 999),
    }));

    const [{ text }] = encode(all, NOW);

    assert.ok(Buffer.byteLength(text) <= 60_000, `${definition.name}: ${Buffer.byteLength(text)} bytes`);
  }
});

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';

import * as generated from '../../dist/contract.gen.js';

const yaml = readFileSync(new URL('../../../contract/metrics.yaml', import.meta.url), 'utf8');

/** The entries of the contract's lists: each begins with `  - key:` or `  - name:`. */
const entries = (word) =>
  yaml
    .split(/\n(?= {2}- )/)
    .map((entry) => entry.trim())
    .filter((entry) => entry.startsWith(`- ${word}: `));
const field = (entry, pattern) => entry.match(pattern)?.[1];
const list = (text) => text?.split(', ');

const labels = new Map(
  entries('key').map((entry) => {
    const key = field(entry, /^- key: (.+)/);
    const members = [...entry.matchAll(/\{id: \w+, value: "?(\w+)"?/g)].map(([, value]) => value);
    const limit = field(entry, /relay: \{.*limit: (\d+)/);
    return [
      key,
      {
        name: field(entry, /relay: \{label: (\w+)/) ?? key,
        ...(members.length && { members }),
        ...(limit && { limit: Number(limit) }),
      },
    ];
  }),
);

const metrics = entries('name')
  .filter((entry) => entry.includes('emitted_by: browser'))
  .map((entry) => {
    const bounds = list(field(entry, /buckets: \[([^\]]+)\]/))?.map(Number);
    return {
      name: field(entry, /^- name: (.+)/),
      unit: field(entry, /\n\s+unit: "?([^"\n]*?)"?\n/),
      labels: [...field(entry, /attributes: \[(.+)\]/).matchAll(/\{ref: ([\w.]+)\}/g)]
        .map(([, key]) => key)
        .filter((key) => key !== 'environment') // the collector's
        .map((key) => labels.get(key)),
      ...(bounds && { bounds }),
    };
  });

const byName = (list) => list.toSorted((a, b) => (a.name < b.name ? -1 : 1));
const definitions = byName(Object.values(generated).filter((each) => each.labels));

test('the package sends the metrics of the contract: names, units, labels with members and limits, bounds', () => {
  assert.equal(metrics.length, 12);
  assert.deepEqual(
    definitions.map(({ labels, ...definition }) => ({
      ...definition,
      labels: labels.map(({ pattern, ...label }) => label),
    })),
    byName(metrics),
  );
});

test('every label is a closed set, or has both a pattern and a limit', () => {
  for (const { labels } of definitions) {
    for (const { name, members, pattern, limit } of labels) {
      assert.ok(members ? !pattern && !limit : pattern && limit, name);
    }
  }
});

test('the official thresholds are bounds, so that the share of good and of poor views is exact', () => {
  const official = {
    largest_contentful_paint_seconds: [2.5, 4],
    interaction_to_next_paint_seconds: [0.2, 0.5],
    cumulative_layout_shift: [0.1, 0.25],
    first_input_delay_seconds: [0.1, 0.3],
    first_contentful_paint_seconds: [1.8, 3],
    time_to_first_byte_seconds: [0.8, 1.8],
  };
  const found = definitions.map(({ name, bounds = [] }) => [
    name,
    official[name]?.filter((each) => bounds.includes(each)),
  ]);

  assert.deepEqual(Object.fromEntries(found.filter(([, thresholds]) => thresholds)), official);
});

test('bounds rise, and begin above zero', () => {
  for (const { name, bounds } of definitions.filter((each) => each.bounds)) {
    assert.deepEqual(
      bounds,
      [...new Set(bounds)].sort((a, b) => a - b),
      name,
    );
    assert.ok(bounds[0] > 0, name);
  }
});

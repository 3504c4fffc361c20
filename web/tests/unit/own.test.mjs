import assert from 'node:assert/strict';
import { test } from 'node:test';

import { counter, histogram } from '../../dist/own.js';
import * as registry from '../../dist/registry.js';
import { openPage } from './page.mjs';

const SHELF = { name: 'shelf', pattern: /^[a-z]+$/u, limit: 50 };
const PAGE_NAME = { name: 'page_name', pattern: /^[a-z/]+$/u, limit: 200 };
const PLAN = { name: 'plan', members: ['free', 'pro'] };

const views = counter({ name: 'shelf_views_total', unit: '{view}', labels: [SHELF, PAGE_NAME] });
const open = histogram({ name: 'basket_open_seconds', unit: 's', labels: [PLAN], bounds: [1, 5] });

/** [name, label values, count, sum] of each series since the last time. */
const told = () => registry.take().map(({ definition, values, count, sum }) => [definition.name, values, count, sum]);

test('labels go by name, in any order, and the page is named by itself', (t) => {
  openPage(t, { path: '/shelf' });
  views.add({ shelf: 'tea' });
  views.add({ page_name: '/search', shelf: 'tea' }, 2);
  open.record(3, { plan: 'pro' });

  assert.deepEqual(told(), [
    ['shelf_views_total', ['tea', '/shelf'], 1, 1],
    ['shelf_views_total', ['tea', '/search'], 2, 2],
    ['basket_open_seconds', ['pro'], 1, 3],
  ]);
});

test('what no label may say is other, and what no value can be is dropped', (t) => {
  openPage(t);
  open.record(3, { plan: 'gold' });
  open.record(-1, { plan: 'pro' });

  assert.deepEqual(told(), [
    ['basket_open_seconds', ['other'], 1, 3],
    ['relay_web_dropped_total', ['invalid'], 1, 1],
  ]);
});

test('on a server nothing is counted, and nothing is thrown', () => {
  views.add({ shelf: 'tea' });
  open.record(3, { plan: 'pro' });

  assert.deepEqual(told(), []);
});

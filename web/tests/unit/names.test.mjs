import assert from 'node:assert/strict';
import { afterEach, describe, test } from 'node:test';

import { setRoutes, template } from '../../dist/pages.js';
import { routeOf } from '../../dist/route.js';
import { freshPackage, openPage } from './page.mjs';

afterEach(() => setRoutes([]));

/** Rows of [what is given, what it becomes], compared at once. */
const table = (rows, name) =>
  assert.deepEqual(
    rows.map(([given]) => [given, name(given)]),
    rows,
  );

test('a path without routes is itself, with everything that looks like an id as [id]', () => {
  table(
    [
      ['/', '/'],
      ['/chat', '/chat'],
      ['/chat/', '/chat'],
      ['//chat', '/chat'],
      ['/en-US/pricing', '/en-US/pricing'],
      ['/oauth2/callback', '/oauth2/callback'],
      ['/item/42', '/item/[id]'],
      ['/item/42/edit', '/item/[id]/edit'],
      ['/2026/11/23', '/[id]/[id]/[id]'],
      ['/commit/f571388a', '/commit/[id]'],
      ['/o/DEADBEEF', '/o/[id]'],
      ['/u/8c1f2a64-3b7e-4a55-9d21-0b1c2d3e4f50', '/u/[id]'],
      ['/f/V1StGXR8_Z5jdHi6B-myT', '/f/[id]'], // nanoid
      ['/f/01HF7YAT00ZZZZZZZZZZZZZZZZ', '/f/[id]'], // ulid
      ['/q/caf%C3%A9', '/q/[id]'],
      ['/q/a%2Fb', '/q/[id]'],
      ['/mail/ann@example.org', '/mail/[id]'],
      [`/t/${'abcdefgh-'.repeat(4)}`, '/t/[id]'],
      ['/item/42?user=ann#top', '/item/[id]'],
      ['/search?q=1', '/search'],
      ['/item/[id]', '/item/[id]'], // a router's own word
      ['/docs/[...rest]', '/docs/[...rest]'],
    ],
    template,
  );
});

test('of the routes that fit, the one with the most fixed segments names the page', () => {
  setRoutes([
    '/[...rest]',
    '/docs/[...path]',
    '/docs/[page]',
    '/docs/intro',
    '/shop/[[...filters]]',
    '/item/[id]',
    '/item/new',
    '/user/:name/posts',
    '/api/{tenant}/chat',
  ]);
  table(
    [
      ['/item/42', '/item/[id]'],
      ['/item/pears', '/item/[id]'], // no id by its looks
      ['/item/new', '/item/new'], // a static neighbour
      ['/item', '/[...rest]'],
      ['/item/42/edit', '/[...rest]'],
      ['/docs/intro', '/docs/intro'],
      ['/docs/outro', '/docs/[page]'], // one segment is closer than many, in whatever order they are listed
      ['/docs/a/b/c', '/docs/[...path]'],
      ['/shop', '/shop/[[...filters]]'],
      ['/shop/red/42', '/shop/[[...filters]]'],
      ['/user/ann/posts', '/user/:name/posts'],
      ['/api/acme/chat', '/api/{tenant}/chat'],
      ['/', '/'],
    ],
    template,
  );
});

test('a path that no route fits has the name that its looks give it', () => {
  setRoutes(['/item/[id]']);

  assert.equal(template('/order/42'), '/order/[id]');
});

describe("Next.js' path and parameters", () => {
  const rows = [
    ['one parameter', '/item/42', { id: '42' }, '/item/[id]'],
    ['a word as parameter', '/item/pears', { id: 'pears' }, '/item/[id]'],
    ['no parameters', '/about', {}, '/about'],
    ['none at all', '/about', null, '/about'],
    ['two parameters', '/acme/chat/7', { tenant: 'acme', chat: '7' }, '/[tenant]/chat/[chat]'],
    ['as it stands in the address', '/q/caf%C3%A9', { word: 'caf%C3%A9' }, '/q/[word]'],
    ['decoded', '/q/caf%C3%A9', { word: 'café' }, '/q/[word]'],
    ['broken encoding', '/q/100%', { word: '100%' }, '/q/[word]'],
    ['a catch-all', '/docs/a/b/c', { rest: ['a', 'b', 'c'] }, '/docs/[...rest]'],
    ['a catch-all of one', '/docs/a', { rest: ['a'] }, '/docs/[...rest]'],
    ['an optional catch-all that is absent', '/shop', { filters: undefined }, '/shop'],
    ['an optional catch-all that is empty', '/shop', { filters: [] }, '/shop'],
    ['a parameter with a static neighbour', '/item/42/edit', { id: '42' }, '/item/[id]/edit'],
    ['a value that is also a static segment', '/users/users', { name: 'users' }, '/users/users'],
    ['the same where it looks like an id', '/42/42', { id: '42' }, '/[id]/[id]'],
    ['two parameters with one value', '/compare/red/red', { a: 'red', b: 'red' }, '/compare/[a]/[b]'],
    ['a parameter that is not in the path', '/about', { locale: 'en' }, '/about'],
  ];
  for (const [what, path, params, name] of rows) {
    test(`${what}: ${path} with ${JSON.stringify(params)} is ${name}`, () => {
      assert.equal(routeOf(path, params), name);
    });
  }

  test('no path has no name', () => {
    assert.equal(routeOf(null, {}), undefined);
  });
});

test('setPageName goes before routes, routes go before looks, and undefined goes back', async (t) => {
  const page = openPage(t, { path: '/item/42?q=1#x' });
  const relay = await freshPackage();
  relay.init({ routes: ['/item/[number]'] });
  relay.recordButtonClick('a');
  relay.setPageName('Item');
  relay.recordButtonClick('b');
  relay.setPageName(undefined);
  relay.recordButtonClick('c');
  page.location.pathname = '/order/42';
  relay.recordButtonClick('d');
  await relay.flush();
  await relay.shutdown();

  assert.deepEqual(page.counts(), {
    'click_event_total{a, /item/[number]}': 1,
    'click_event_total{b, Item}': 1,
    'click_event_total{c, /item/[number]}': 1,
    'click_event_total{d, /order/[id]}': 1,
  });
});

test('an API error is counted by the template of its path, and never by a query', async (t) => {
  const page = openPage(t);
  const relay = await freshPackage();
  relay.init({ routes: ['/api/{tenant}/chat'] });
  relay.recordAPIError('/api/acme/chat?token=secret', 'http_5xx', 503);
  relay.recordAPIError('/api/item/42', 'network');
  relay.recordAPIError('api.example.org', 'timeout', 0);
  await relay.flush();
  await relay.shutdown();

  assert.deepEqual(page.counts(), {
    'api_call_errors_client_total{/api/{tenant}/chat, http_5xx, 503}': 1,
    'api_call_errors_client_total{/api/item/[id], network, unknown}': 1,
    'api_call_errors_client_total{api.example.org, timeout, unknown}': 1,
  });
});

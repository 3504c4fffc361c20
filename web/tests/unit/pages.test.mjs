import assert from 'node:assert/strict';
import { beforeEach, test } from 'node:test';

import { routeOf } from '../../dist/route.js';
import { fresh, openPage } from './page.mjs';

/** Names of pages, as they are on a page that was just loaded. */
let pages;
beforeEach(async () => {
  pages = await fresh('pages');
});

for (const [path, name] of [
  ['/feedback', '/feedback'], // no hexadecimal number
  ['/facade', '/facade'], // nor a long enough one
  ['/page-1234', '/page-1234'], // 9 characters
  ['/page-12345', '/[id]'], // 10, a digit among them
  [`/${'a'.repeat(32)}`, '/[id]'], // hexadecimal
  [`/${'z'.repeat(32)}`, `/${'z'.repeat(32)}`],
  [`/${'z'.repeat(33)}`, '/[id]'],
  ['/@ada/posts', '/[id]/posts'],
  ['/file/100%', '/file/[id]'], // encoded wrongly
  ['/docs/[...a-long-name-for-the-rest-of-the-path]', '/docs/[...a-long-name-for-the-rest-of-the-path]'],
]) {
  test(`the path ${path} is ${name}`, () => {
    assert.equal(pages.template(path), name);
  });
}

for (const path of ['/chat?token=secret', '/chat#secret', '/chat?a=/b/c', '/chat#/b?c', '/chat/?q', '/chat?#']) {
  test(`neither query nor hash is part of a name: ${path}`, (t) => {
    openPage(t, { path });

    assert.deepEqual([pages.template(path), pages.pageName(), pages.pageOf(path)], ['/chat', '/chat', '/chat']);
  });
}

const ROUTES = [
  '/',
  '/[user]',
  '/item/[id]',
  '/item/new',
  '/docs/[...path]',
  '/docs/api/[...path]',
  '/wiki/[[...path]]',
];
for (const [order, routes] of [
  ['as they are', ROUTES],
  ['the other way round', [...ROUTES].reverse()],
]) {
  test(`the order of routes does not matter: ${order}`, () => {
    pages.setRoutes(routes);

    const paths = ['/', '/ada', '/item/blue', '/item/new', '/docs', '/docs/a/b', '/docs/api/a', '/wiki', '/wiki/a/b'];
    assert.deepEqual(paths.map(pages.template), [
      '/',
      '/[user]',
      '/item/[id]',
      '/item/new',
      '/[user]', // [...path] is one segment or more
      '/docs/[...path]',
      '/docs/api/[...path]',
      '/wiki/[[...path]]', // [[...path]] is also none
      '/wiki/[[...path]]',
    ]);
  });
}

test('a name stays that of its path after the page was left', (t) => {
  const page = openPage(t, { path: '/item/42' });
  pages.setPageName('shop');
  page.location.pathname = '/about';
  pages.setPageName('about');

  assert.deepEqual(['/item/42', 'https://relay.example/item/42?q=2#top', '/about', '/item/43'].map(pages.pageOf), [
    'shop',
    'shop',
    'about',
    '/item/[id]',
  ]);
});

test('names of 200 paths are remembered; the others go by their path', (t) => {
  openPage(t);
  for (let n = 0; n < 201; n++) pages.namePage(`page ${n}`, `/p/${n}`);

  assert.deepEqual([pages.pageOf('/p/199'), pages.pageOf('/p/200')], ['page 199', '/p/[id]']);
});

test('a name is given up by who gave it, not by who leaves later', (t) => {
  openPage(t, { path: '/item/42' });
  const names = [];
  pages.setPageName('new');
  for (const left of [['old', 'away'], ['new', 'outer'], ['outer']]) {
    pages.leavePage(...left);
    names.push(pages.pageName());
  }

  assert.deepEqual(names, ['new', 'outer', '/item/[id]']);
});

for (const [path, params, name] of [
  ['/', null, '/'],
  ['/item/blue/', { slug: 'blue' }, '/item/[slug]'], // trailingSlash
  ['/item/42', {}, '/item/[id]'],
  ['/en/shop/7', { id: '7', locale: 'en' }, '/[locale]/shop/[id]'], // in whatever order they are given
  ['/wiki/a%2Fb', { page: 'a/b' }, '/wiki/[page]'],
  ['/wiki/a%2Fb', { page: 'a%2Fb' }, '/wiki/[page]'],
  ['/docs/a%20b/c', { path: ['a b', 'c'] }, '/docs/[...path]'],
  ['/en/docs', { locale: 'en', path: undefined }, '/[locale]/docs'],
  ['/users/users/7', { name: 'users', id: '7' }, '/users/users/[id]'], // the certain one is replaced
  ['/docs/docs', { path: ['docs'] }, '/docs/docs'],
  ['/a/b/a/b', { path: ['a', 'b'] }, '/a/b/a/b'],
  ['/a/a/a', { x: 'a', y: 'a' }, '/a/a/a'],
  ['/a/a/a', { x: 'a', y: 'a', z: 'a' }, '/[x]/[y]/[z]'],
]) {
  test(`Next.js' ${path} with ${JSON.stringify(params)} is ${name}`, () => {
    assert.equal(routeOf(path, params), name);
  });
}

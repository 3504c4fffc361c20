import assert from 'node:assert/strict';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';

import { build } from 'esbuild';

import { Collector, click, launch, observed, serve } from '../browser/harness.mjs';

const HERE = dirname(fileURLToPath(import.meta.url));
const REACTS = { 19: join(HERE, '../../node_modules'), 18: join(HERE, 'react18/node_modules') };

const HTML = `<!doctype html><html lang="en"><head><link rel="icon" href="data:,"><title>Page</title></head>
<body><p>A page with something to see</p><div id="root"></div><script type="module" src="/scenes.js"></script></body></html>`;

/** Bundled as a development server does it, where StrictMode renders and runs effects twice. */
async function bundle(react, entry, more = {}) {
  const { outputFiles } = await build({
    entryPoints: [join(HERE, entry)],
    bundle: true,
    write: false,
    format: 'esm',
    jsx: 'automatic',
    define: { 'process.env.NODE_ENV': '"development"' },
    alias: {
      react: join(REACTS[react], 'react'),
      'react-dom': join(REACTS[react], 'react-dom'),
      'next/navigation.js': join(HERE, 'navigation.js'),
    },
    logLevel: 'warning',
    ...more,
  });
  return outputFiles[0].text;
}

describe('React', { timeout: 300_000 }, () => {
  let chromium;
  before(async () => {
    chromium = await launch();
  });
  after(() => chromium.close());

  for (const react of Object.keys(REACTS)) {
    describe(`React ${react}, in development and in StrictMode,`, () => {
      let scenes;
      before(async () => {
        scenes = await bundle(react, 'scenes.jsx');
      });

      async function open(path) {
        const collector = new Collector();
        const { origin, close } = await serve({ [path]: HTML, '/scenes.js': scenes }, collector);
        const tab = await chromium.visit(origin + path);
        await tab.waitForFunction(() => window.scene);
        const play = (...scene) => tab.evaluate((scene) => window.scene(...scene), scene);
        const end = async () => {
          await tab.context().close();
          close();
        };
        return { tab, collector, play, end };
      }

      /** Which page the tab believes to show after each scene. */
      async function namesAfter(path, ...scenes) {
        const { tab, collector, play, end } = await open(path);
        await tab.evaluate(() => init(options));
        for (const [step, scene] of scenes.entries()) {
          await play(...scene);
          await tab.evaluate((step) => recordButtonClick(`step ${step}`), step);
        }
        await tab.evaluate(() => flush());
        await end();
        return Object.keys(collector.counts())
          .sort()
          .map((name) => name.match(/step \d+, (.*)}/)[1]);
      }

      test('a page is measured once, and clicks as often as there were', async () => {
        const { tab, collector, play, end } = await open('/item/kettle');
        await play('page');
        await tab.waitForFunction(() => performance.getEntriesByType('navigation')[0].loadEventEnd > 0);
        await observed(tab, 'largest-contentful-paint');
        await click(tab, 'text=Buy');
        await tab.click('button:text("Save")');
        await tab.click('button:text("Save")');
        await tab.waitForSelector('text=Saved 2 times');
        const [said, identities] = await tab.evaluate(() => [window.said, window.identities.size]);

        await tab.goto('about:blank');

        await collector.until((counts) => Object.keys(counts).length === 11);
        await end();
        assert.deepEqual(
          [collector.counts(), said, identities],
          [
            {
              'click_event_total{buy, /item/[id]}': 1,
              'click_event_total{save, /item/[id]}': 2,
              'cumulative_layout_shift{/item/[id]}': 1,
              'first_contentful_paint_seconds{/item/[id]}': 1,
              'first_input_delay_seconds{/item/[id]}': 1,
              'form_submission_total{login, success}': 2,
              'interaction_to_next_paint_seconds{/item/[id]}': 1,
              'largest_contentful_paint_seconds{/item/[id]}': 1,
              'session_duration_seconds{authenticated}': 1,
              'time_to_first_byte_seconds{/item/[id]}': 1,
              'web_page_load_time_seconds{/item/[id], desktop}': 1,
            },
            [],
            2,
          ],
        );
      });

      test('the innermost name holds while it is shown, then the one around it, then the path', async () => {
        const names = await namesAfter(
          '/shop',
          ['names', []],
          ['names', ['outer']],
          ['names', ['outer', 'inner']],
          ['names', ['renamed', 'inner']],
          ['names', ['renamed']],
          ['names', ['renamed', 'inner', 'innermost']],
          ['names', []],
          ['names', ['both', 'at once']],
          ['nothing'],
        );

        const expected = ['/shop', 'outer', 'inner', 'inner', 'renamed', 'innermost', '/shop', 'at once', '/shop'];
        assert.deepEqual(names, expected);
      });

      if (react >= 19) {
        test('what an <Activity> hides gives no name, and gives it again when it is shown again', async () => {
          const names = await namesAfter(
            '/shop',
            ['names', ['outer', 'inner'], true],
            ['names', ['outer', 'inner'], false],
            ['names', ['outer', 'inner'], true],
            ['names', ['outer', 'inner'], false],
          );

          assert.deepEqual(names, ['outer', 'inner', 'outer', 'inner']);
        });
      }

      test('on a server, nothing is rendered, said or begun', async (t) => {
        const said = ['error', 'warn'].map((kind) => t.mock.method(console, kind, () => {}).mock);
        const code = await bundle(react, 'server.jsx', { platform: 'node', format: 'cjs' });
        const module = { exports: {} };

        new Function('require', 'module', 'exports', code)(createRequire(import.meta.url), module, module.exports);

        // The comments are Suspense's.
        assert.deepEqual(
          [module.exports.html.replace(/<!--.*?-->/g, ''), said.flatMap(({ calls }) => calls), 'window' in globalThis],
          ['<h1>Kettle</h1>', [], false],
        );
      });

      for (const routesFirst of [true, false]) {
        test(`a router's names come to each page in time, with RelayRoutes ${routesFirst ? 'above' : 'below'} it`, async () => {
          const landing = { path: '/item/kettle', params: { id: 'kettle' }, name: 'an item', routesFirst };
          const cart = { path: '/cart/blue', params: { colour: 'blue' }, routesFirst };
          const { tab, collector, play, end } = await open('/item/kettle');
          await play('route', landing);
          await tab.evaluate(() => begin());
          await play('route', cart);
          await play('route', landing);
          await play('route', cart);
          await tab.evaluate(() => flush());
          await end();

          // In development, effects of what is mounted run twice.
          assert.deepEqual(
            Object.entries(collector.counts())
              .filter(([name]) => /^click|^web_page/.test(name))
              .sort(),
            [
              ['click_event_total{at /cart/blue, /cart/[colour]}', 4],
              ['click_event_total{at /item/kettle, an item}', 4],
              ['web_page_load_time_seconds{an item, desktop}', 1],
            ],
          );
        });
      }

      test('an app below a path of its site has the same names for its load as for its clicks', async () => {
        const { tab, collector, play, end } = await open('/shop/item/kettle');
        await tab.evaluate(() => begin());
        await play('route', { base: '/shop', path: '/item/kettle', params: { id: 'kettle' } });
        await tab.evaluate(() => flush());
        await end();

        const names = Object.keys(collector.counts()).filter((name) => /^click|^web_page/.test(name));
        assert.deepEqual(names.sort(), [
          'click_event_total{at /item/kettle, /item/[id]}',
          'web_page_load_time_seconds{/item/[id], desktop}',
        ]);
      });
    });
  }
});

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';

import { all, Collector, launch, page, serve } from './harness.mjs';

const BEGIN = 'relay.init({ allowBots: true, onError: (sentence) => said.push(sentence) });';

const errors = (...each) => Object.fromEntries(each.map((labels) => [`api_call_errors_client_total{${labels}}`, 1]));

describe('captured, fetch', { concurrency: 4, timeout: 60_000 }, () => {
  let chromium;
  before(async () => {
    chromium = await launch();
  });
  after(() => chromium.close());

  /** An API; `arrived` resolves when its `/api/waits` was asked, which never answers. */
  function api() {
    let tell;
    const arrived = new Promise((resolve) => (tell = resolve));
    const answers = (status) => (_, response) => {
      response.setHeader('access-control-allow-origin', '*');
      response.writeHead(status).end(`it is ${status}`);
    };
    const pages = {
      '/api/fine': answers(200),
      '/api/missing': answers(404),
      '/api/item/42': answers(410),
      '/api/broken': answers(503),
      '/api/resets': (request) => void request.socket.destroy(),
      '/api/waits': () => tell(),
      '/closed': (_, response) => void response.end(),
      '/away': page(),
    };
    return { arrived, pages };
  }

  async function open(t, script = `${BEGIN} relay.captureErrors();`, answers = [200]) {
    const collector = new Collector({ answers });
    const { arrived, pages } = api();
    const site = await serve({ '/item/42': page(script), ...pages }, collector);
    t.after(site.close);
    const tab = await chromium.visit(`${site.origin}/item/42`);
    t.after(() => tab.context().close());
    /** Ends what is measured, and gives what was. */
    const counts = async () => {
      await tab.evaluate(() => new Promise((resolve) => setTimeout(resolve))); // errors of the network wait for a timer
      await tab.evaluate(() => relay.shutdown());
      return collector.counts();
    };
    return { arrived, collector, counts, origin: site.origin, tab };
  }

  test('counts no call that the page itself gave up, whatever reason it gave', async (t) => {
    const { counts, tab } = await open(t);
    const names = await tab.evaluate(async () => {
      const reasons = [[], ['no longer needed'], [new Error('left')], [null], [{ code: 7 }]];
      const calls = reasons.flatMap((reason) => {
        const [one, other] = [new AbortController(), new AbortController()];
        const pending = [
          fetch('/api/waits', { signal: one.signal }),
          fetch(new Request('/api/waits', { signal: other.signal })),
        ];
        one.abort(...reason);
        other.abort(...reason);
        return pending;
      });
      const early = AbortSignal.abort('before it began');
      const settled = await Promise.allSettled([...calls, fetch('/api/waits', { signal: early })]);
      await fetch('/api/missing'); // the control
      return settled.map(({ status, reason }) => (status === 'rejected' ? String(reason?.name ?? reason) : status));
    });

    assert.deepEqual(names, [
      ...['AbortError', 'no longer needed', 'Error', 'null', '[object Object]'].flatMap((name) => [name, name]),
      'before it began',
    ]);
    assert.deepEqual(await counts(), errors('/api/missing, http_4xx, 404'));
  });

  test('understands texts, URLs, Requests and paths that are relative to <base>', async (t) => {
    const { counts, origin, tab } = await open(t);
    await tab.evaluate(async (origin) => {
      await fetch(`${origin}/api/missing?1`);
      await fetch(new URL('/api/missing?2', origin));
      await fetch(new Request('/api/missing?3'));
      await fetch({ toString: () => '/api/missing?4' });
      document.head.append(Object.assign(document.createElement('base'), { href: '/api/' }));
      await fetch('missing?5');
    }, origin);

    assert.deepEqual(await counts(), { 'api_call_errors_client_total{/api/missing, http_4xx, 404}': 5 });
  });

  test('counts another origin by its host: its paths are not ours to name', async (t) => {
    const elsewhere = await serve(api().pages);
    t.after(elsewhere.close);
    const { counts, tab } = await open(t);
    const got = await tab.evaluate(async (origin) => {
      const paths = ['/api/broken', '/api/resets', '/closed']; // the last allows nobody: to the page it looks like the network
      const got = [];
      for (const path of paths) got.push(await fetch(origin + path).then(({ status }) => status, String));
      return got;
    }, elsewhere.origin);
    assert.deepEqual(got, [503, 'TypeError: Failed to fetch', 'TypeError: Failed to fetch']);

    assert.deepEqual(await counts(), {
      [`api_call_errors_client_total{${elsewhere.host}, http_5xx, 503}`]: 1,
      [`api_call_errors_client_total{${elsewhere.host}, network, unknown}`]: 2,
    });
  });

  test('never counts what goes to the collector, so that a collector that fails makes no more of itself', async (t) => {
    const { collector, tab } = await open(t, `relay.captureErrors(); ${BEGIN}`, [500]);
    await tab.evaluate(async () => {
      relay.recordButtonClick('save');
      await relay.flush();
      await fetch('/otel/v1/metrics', { method: 'POST', body: '{"resourceMetrics":[]}' });
      await relay.flush();
      await relay.flush();
    });

    const metrics = collector.posts.flatMap(({ body }) => Object.keys(collector.counts([{ body }])));
    // The refused click, the page's own call, what was refused, and what was refused of that.
    assert.deepEqual(metrics, [
      'click_event_total{save, /item/[id]}',
      'relay_web_dropped_total{rejected}',
      'relay_web_dropped_total{rejected}',
    ]);
    assert.equal(collector.posts.length, 4);
  });

  test('does not take for an error what Chromium fails because the page is reloaded', async (t) => {
    const script = `${BEGIN} relay.captureErrors(); relay.recordButtonClick('save');
      fetch('/api/waits').catch(() => {});
      // The control: who counts at once does count it.
      fetch('/api/waits').catch(() => { relay.recordAPIError('/control', 'network'); relay.flush(); });`;
    const collector = new Collector();
    const { arrived, pages } = api();
    let views = 0;
    const site = await serve({ '/item/42': () => page(views++ ? '' : script), ...pages }, collector);
    t.after(site.close);
    const tab = await chromium.visit(`${site.origin}/item/42`);
    t.after(() => tab.context().close());
    await arrived;

    await tab.reload();
    const expected = { ...errors('/control, network, unknown'), 'click_event_total{save, /item/[id]}': 1 };
    await collector.until(all(expected));
    await tab.evaluate(() => fetch('/away'));

    assert.deepEqual(collector.counts(), expected);
  });

  test('lets a stand-in for fetch that throws throw, and one that gives no promise give what it likes', async (t) => {
    const standIn = `window.fetch = (what) => { if (what === 'throw') throw new RangeError('mine'); return what; };`;
    const { collector, tab } = await open(t, `${standIn} ${BEGIN} relay.captureErrors();`);
    const got = await tab.evaluate(() => {
      let thrown;
      try {
        fetch('throw');
      } catch (error) {
        thrown = `${error}`;
      }
      return [thrown, fetch('text'), fetch(undefined) === undefined, window.thrown];
    });

    assert.deepEqual([got, collector.counts()], [['RangeError: mine', 'text', true, []], {}]);
  });
});

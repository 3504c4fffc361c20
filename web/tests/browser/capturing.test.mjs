import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';

import { Collector, launch, page, serve } from './harness.mjs';

const BEGIN = 'window.own = fetch; relay.init({ allowBots: true });';

describe('capturing', { timeout: 120_000 }, () => {
  let chromium;
  let elsewhere;
  before(async () => {
    chromium = await launch();
    const open = (_, response) => {
      response.setHeader('access-control-allow-origin', '*');
      response.writeHead(503).end();
    };
    elsewhere = await serve({ '/api/secret/42': open });
  });
  after(async () => {
    elsewhere.close();
    await chromium.close();
  });

  const status = (code) => (_, response) => void response.writeHead(code).end('an answer');
  const api = {
    '/api/ok': status(200),
    '/api/item/42': status(404),
    '/api/broken': status(500),
    '/api/busy': status(503),
    '/api/reset': (request) => void request.socket.destroy(),
    '/api/never': () => {},
    '/page': status(500),
  };

  /** What a page counts that runs `calls` after it began so. */
  async function counted(t, script, calls, { body, collector = new Collector() } = {}) {
    const site = await serve(
      { '/chat': page(script, body), '/second.js': "export * from '/relay-web.js?second';", ...api },
      collector,
    );
    const tab = await chromium.visit(`${site.origin}/chat`);
    t.after(async () => {
      await tab.context().close();
      site.close();
    });
    await tab.waitForFunction(() => window.ready);
    const result = await (typeof calls === 'string' ? tab.click(calls) : tab.evaluate(calls, elsewhere.origin));
    // A failure is counted in a task of its own.
    await tab.evaluate(() => new Promise((resolve) => setTimeout(() => resolve(relay.flush()), 50)));
    return { counts: collector.counts(), result, tab, collector, thrown: await tab.evaluate(() => thrown) };
  }

  test('a call that fails is counted by its template, its kind and its status; one that succeeds is not', async (t) => {
    const { counts, thrown } = await counted(t, `${BEGIN} relay.captureErrors();`, async () => {
      await fetch('/api/ok');
      await fetch('/api/item/42?user=ann');
      await fetch('api/item/42'); // as the page's address says
      await fetch(new URL('/api/item/42', location.href));
      await fetch(new Request('/api/broken', { method: 'POST', body: 'x' }));
      await fetch('/api/busy', { method: 'PUT' });
      await fetch('/api/reset').catch(() => {});
      await fetch('/page?_rsc=1abc'); // Next.js looks ahead
    });

    assert.deepEqual(
      [counts, thrown],
      [
        {
          'api_call_errors_client_total{/api/item/[id], http_4xx, 404}': 3,
          'api_call_errors_client_total{/api/broken, http_5xx, 500}': 1,
          'api_call_errors_client_total{/api/busy, http_5xx, 503}': 1,
          'api_call_errors_client_total{/api/reset, network, unknown}': 1,
        },
        [],
      ],
    );
  });

  test('a call to another origin is counted by its host, and nothing else of its address', async (t) => {
    const { counts } = await counted(t, `${BEGIN} relay.captureErrors();`, (origin) =>
      fetch(`${origin}/api/secret/42`).then(() => {}),
    );

    assert.deepEqual(counts, { [`api_call_errors_client_total{${elsewhere.host}, http_5xx, 503}`]: 1 });
  });

  test('who gives up a call gets the error of before, and it is not counted; a timeout is', async (t) => {
    const { counts, result, thrown } = await counted(t, `${BEGIN} relay.captureErrors();`, async () => {
      const failure = (promise) => promise.then(String, (reason) => reason);
      const controller = new AbortController();
      const aborted = failure(fetch('/api/never', { signal: controller.signal }));
      controller.abort();
      const reasoned = new AbortController();
      const reason = { mine: true };
      const gaveUp = failure(fetch(new Request('/api/never', { signal: reasoned.signal })));
      reasoned.abort(reason);
      const before = failure(fetch('/api/never', { signal: AbortSignal.abort() }));
      const timeout = await failure(fetch('/api/never', { signal: AbortSignal.timeout(50) }));
      const network = await failure(fetch('/api/reset'));
      return {
        aborted: (await aborted).name,
        before: (await before).name,
        sameReason: (await gaveUp) === reason,
        timeout: timeout.name,
        network: network instanceof TypeError,
      };
    });

    assert.deepEqual(
      [result, counts, thrown],
      [
        { aborted: 'AbortError', before: 'AbortError', sameReason: true, timeout: 'TimeoutError', network: true },
        {
          'api_call_errors_client_total{/api/never, timeout, unknown}': 1,
          'api_call_errors_client_total{/api/reset, network, unknown}': 1,
        },
        [],
      ],
    );
  });

  test('the page gets the very promise and answer of the fetch that was there, with its body unread', async (t) => {
    const { result } = await counted(
      t,
      `${BEGIN}
      window.given = [];
      window.fetch = (...request) => {
        const promise = own(...request);
        given.push({ request, promise });
        return promise;
      };
      relay.captureErrors();`,
      async () => {
        const options = { method: 'POST' };
        const promise = fetch('/api/broken', options);
        const answer = await promise;
        const [{ request, promise: original }] = given;
        return {
          samePromise: promise === original,
          sameAnswer: answer === (await original),
          sameArguments: request.length === 2 && request[0] === '/api/broken' && request[1] === options,
          bodyUsed: answer.bodyUsed,
          text: await answer.text(),
        };
      },
    );

    assert.deepEqual(result, {
      samePromise: true,
      sameAnswer: true,
      sameArguments: true,
      bodyUsed: false,
      text: 'an answer',
    });
  });

  test('a failure that the page waits for and does not catch is an unhandledrejection of the page, once', async (t) => {
    const { thrown, counts } = await counted(t, `${BEGIN} relay.captureErrors();`, () => {
      fetch('/api/reset').then(() => {});
      return new Promise((resolve) => addEventListener('unhandledrejection', () => setTimeout(resolve, 50)));
    });

    assert.deepEqual(
      [thrown, counts],
      [['TypeError: Failed to fetch'], { 'api_call_errors_client_total{/api/reset, network, unknown}': 1 }],
    );
  });

  test('what we send ourselves is no call, however the collector answers', async (t) => {
    const collector = new Collector({ answers: [500, 'reset', 404, 200] });
    const { counts } = await counted(
      t,
      `relay.captureErrors(); ${BEGIN}`, // our own fetch is captured here
      async () => {
        for (let n = 0; n < 3; n++) {
          relay.recordButtonClick('save');
          await relay.flush();
        }
      },
      { collector },
    );

    assert.deepEqual(
      Object.keys(counts).filter((name) => name.startsWith('api_call')),
      [],
    );
    assert.equal(collector.posts.length, 4);
  });

  test('XMLHttpRequest is left alone', async (t) => {
    const { counts, result } = await counted(
      t,
      `const { open, send } = XMLHttpRequest.prototype; ${BEGIN} relay.captureAll(); window.same = () => XMLHttpRequest.prototype.open === open && XMLHttpRequest.prototype.send === send;`,
      () =>
        new Promise((resolve) => {
          const request = new XMLHttpRequest();
          request.open('GET', '/api/broken');
          request.onloadend = () => resolve(same());
          request.send();
        }),
    );

    assert.deepEqual([result, Object.keys(counts).filter((name) => name.startsWith('api_call'))], [true, []]);
  });

  test('shutdown gives the page its fetch back', async (t) => {
    const { result } = await counted(t, `${BEGIN} relay.captureErrors();`, async () => {
      const during = fetch === own;
      await relay.shutdown();
      return [during, fetch === own];
    });

    assert.deepEqual(result, [false, true]);
  });

  test('shutdown leaves alone who wrapped fetch after us, and counts nothing through it', async (t) => {
    const { counts, result } = await counted(t, `${BEGIN} relay.captureErrors();`, async () => {
      const ours = fetch;
      const theirs = (...request) => ours(...request);
      window.fetch = theirs;
      await relay.shutdown();
      await fetch('/api/broken');
      return fetch === theirs;
    });

    assert.deepEqual([counts, result], [{}, true]);
  });

  test('two copies of the package on one page count a failing call once', async (t) => {
    const { counts } = await counted(
      t,
      `const second = await import('/second.js');
      if (second.init === relay.init) throw new Error('these are no two copies');
      for (const copy of [relay, second]) { copy.init({ allowBots: true }); copy.captureErrors(); }
      window.flushSecond = second.flush;`,
      async () => {
        await fetch('/api/broken');
        await flushSecond();
      },
    );

    assert.deepEqual(counts, { 'api_call_errors_client_total{/api/broken, http_5xx, 500}': 1 });
  });

  test('what is under way when the page is left is no failure of the API', async (t) => {
    const collector = new Collector();
    const site = await serve({ '/chat': page(`${BEGIN} relay.captureErrors();`), '/away': page(), ...api }, collector);
    const tab = await chromium.visit(`${site.origin}/chat`);
    t.after(async () => {
      await tab.context().close();
      site.close();
    });
    await tab.waitForFunction(() => window.ready);
    await tab.evaluate(() => {
      fetch('/api/never');
      relay.recordButtonClick('leave');
    });
    await tab.goto(`${site.origin}/away`);
    await collector.until((counts) => counts['click_event_total{leave, /chat}']);
    await tab.evaluate(() => fetch('/away'));

    assert.deepEqual(collector.counts(), { 'click_event_total{leave, /chat}': 1 });
  });
});

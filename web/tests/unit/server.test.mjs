import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { test } from 'node:test';

const script = `
  const entries = ['@relay-otel/web', '@relay-otel/web/vitals', '@relay-otel/web/react', '@relay-otel/web/next'];
  const before = Object.getOwnPropertyNames(globalThis).length;
  const called = [];
  for (const entry of entries) {
    const module = await import(entry);
    const hooks = /^(use|Relay)/; // they are called while React renders
    for (const [name, value] of Object.entries(module)) {
      if (typeof value !== 'function' || hooks.test(name)) continue;
      for (const values of [[], ['/item/[id]', 500], [{ endpoint: 'nowhere:' }]]) await value(...values);
      called.push(name);
    }
  }
  const { init } = await import('@relay-otel/web');
  const handle = init();
  await handle.flush();
  await handle.shutdown();

  const { createElement } = await import('react');
  const { renderToString } = await import('react-dom/server');
  const { RelayWeb } = await import('@relay-otel/web/react');
  const html = renderToString(createElement('p', null, createElement(RelayWeb, { pageName: '/', userType: 'anonymous' })));
  const globals = Object.getOwnPropertyNames(globalThis).filter((name) => /relay/i.test(name));
  process.send({ called: [...new Set(called)].sort(), html, globals });
`;

test('on a server every entry point can be imported and everything called: nothing happens, nothing is printed', () => {
  const run = spawnSync(
    process.execPath,
    [
      '--input-type=module',
      '--eval',
      script.replace('process.send(', 'process.stdout.write(JSON.stringify(').replace(/\);\s*$/, '));'),
    ],
    { cwd: new URL('../..', import.meta.url), encoding: 'utf8', env: { ...process.env, NODE_ENV: 'production' } },
  );

  assert.deepEqual([run.status, run.stderr], [0, '']);
  assert.deepEqual(JSON.parse(run.stdout), {
    called: [
      'captureAll',
      'captureClicks',
      'captureErrors',
      'capturePageLoad',
      'captureSession',
      'flush',
      'init',
      'recordAPIError',
      'recordButtonClick',
      'recordCoreWebVitals',
      'recordFormSubmission',
      'recordPageLoad',
      'recordSessionDuration',
      'setPageName',
      'setUserType',
      'shutdown',
    ],
    html: '<p></p>',
    globals: [],
  });
});

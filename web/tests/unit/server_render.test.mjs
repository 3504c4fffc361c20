import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { test } from 'node:test';

/** What a Node.js process prints, which must end by itself. */
function run(script) {
  const { status, signal, stdout, stderr } = spawnSync(process.execPath, ['--input-type=module', '--eval', script], {
    cwd: new URL('../..', import.meta.url),
    encoding: 'utf8',
    env: { ...process.env, NODE_ENV: 'development' },
    timeout: 60_000, // no assertion: who waits for a timer of ours is told so
  });
  return { status, signal, stdout, stderr };
}

const TIMERS = "process.getActiveResourcesInfo().filter((each) => each === 'Timeout').length";

test('on a server every component and hook renders, warns of nothing, and leaves no timer', () => {
  const outcome = run(`
    import { createElement } from 'react';
    import { renderToString } from 'react-dom/server';
    import * as next from '@relay-otel/web/next';
    import * as react from '@relay-otel/web/react';
    function Page() {
      react.usePageName('chat');
      react.useButtonClick('send')();
      react.useFormSubmission('login')('success');
      return createElement('p', null, createElement(react.RelayWeb, { endpoint: 3 }), createElement(next.RelayRoutes));
    }
    const html = renderToString(createElement(Page)).replace(/<!--.*?-->/g, '');
    process.stdout.write([...Object.keys({ ...next, ...react }).sort(), html, ${TIMERS}].join(' '));`);

  const stdout = 'RelayRoutes RelayWeb useButtonClick useFormSubmission usePageName <p></p> 0';
  assert.deepEqual(outcome, { status: 0, signal: null, stdout, stderr: '' });
});

test('a timer would be seen', () => {
  const { stdout } = run(
    `const timer = setTimeout(() => {}, 60_000); process.stdout.write(String(${TIMERS})); clearTimeout(timer);`,
  );

  assert.equal(stdout, '1');
});

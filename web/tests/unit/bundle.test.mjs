import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

import { build } from 'esbuild';

const resolveDir = fileURLToPath(new URL('../../dist', import.meta.url));

/** What a page loads that imports so: minified, all in one. */
async function bundled(contents) {
  const { outputFiles, metafile } = await build({
    stdin: { contents, resolveDir },
    bundle: true,
    minify: true,
    format: 'esm',
    target: 'es2020',
    metafile: true,
    write: false,
    logLevel: 'error',
  });
  const [output] = Object.values(metafile.outputs);
  const parts = Object.keys(output.inputs).filter((path) => output.inputs[path].bytesInOutput > 0);
  return { text: outputFiles[0].text, code: outputFiles[0].contents, parts };
}

/** As \`gzip -9\` does it; zlib in Node makes a little more of the same. */
const gzipped = (code) => execFileSync('gzip', ['-9', '-n'], { input: code }).length;

test('what a page imports is what it loads: of clicks alone no web-vitals, no sessions, no fetch capture', async () => {
  const { text, parts } = await bundled("export { recordButtonClick } from './index.js'");

  assert.deepEqual(
    parts
      .map((path) => path.split('/').at(-1))
      .filter((name) => /web-vitals|vitals|sessions|errors|loads|forms|transport|otlp/.test(name)),
    [],
  );
  assert.ok(!/largest|fetch|localStorage/.test(text));
});

test('an import alone loads nothing', async () => {
  const { text } = await bundled("import './index.js'; import './vitals.js'");

  assert.equal(text, '');
});

test('all but web vitals, and all with them, keep to their budgets', async () => {
  const core =
    await bundled(`export { init, flush, shutdown, setPageName, setUserType, recordPageLoad, recordButtonClick,
    recordFormSubmission, recordSessionDuration, recordAPIError } from './index.js'`);
  const all = await bundled("export * from './index.js'");
  const sizes = { core: gzipped(core.code), all: gzipped(all.code) };

  assert.ok(sizes.core <= 4_000 && sizes.all <= 8_192, JSON.stringify(sizes));
});

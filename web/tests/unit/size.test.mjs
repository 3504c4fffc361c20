import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

import { build } from 'esbuild';

const DIST = fileURLToPath(new URL('../../dist/', import.meta.url));

/** Whether web-vitals is in the bundle of an import, by its modules and by its text. */
async function hasVitals(names) {
  const { outputFiles, metafile } = await build({
    stdin: { contents: `export ${names} from './index.js';`, resolveDir: DIST },
    bundle: true,
    minify: true,
    format: 'esm',
    target: 'es2020',
    metafile: true,
    write: false,
  });
  const [{ inputs }] = Object.values(metafile.outputs);
  const modules = Object.keys(inputs).filter((path) => inputs[path].bytesInOutput > 0);
  return [
    modules.some((path) => path.includes('node_modules/web-vitals/')),
    outputFiles[0].text.includes('largest-contentful-paint'),
  ];
}

test('who imports one button gets no web-vitals; who imports everything does', async () => {
  assert.deepEqual(
    [await hasVitals('{ recordButtonClick }'), await hasVitals('*')],
    [
      [false, false],
      [true, true],
    ],
  );
});

test('the file for pages without a bundler weighs at most 8,192 bytes', () => {
  const bytes = execFileSync('gzip', ['-9', '-n'], { input: readFileSync(`${DIST}relay-web.js`) }).length;

  assert.ok(bytes <= 8_192, `${bytes} bytes`);
});

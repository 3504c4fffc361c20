import assert from 'node:assert/strict';
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';

import { bin, install, pack, run, WEB } from './packed.mjs';

const text = (path) => readFile(join(WEB, path), 'utf8');
const { exports } = JSON.parse(await text('package.json'));
const ENTRIES = Object.keys(exports)
  .filter((entry) => entry !== './package.json')
  .map((entry) => `@relay-otel/web${entry.slice(1)}`);

describe('the package', { concurrency: 2, timeout: 300_000 }, () => {
  /** A user's project, below web/ for the sake of its React and Next.js. */
  let project;
  let installed;
  let packed;
  before(async () => {
    project = await mkdtemp(join(WEB, 'tests/.project-'));
    packed = await pack(project);
    installed = await install(project);
    await writeFile(join(project, 'package.json'), '{"type": "module"}');
  });
  after(() => rm(project, { recursive: true, force: true }));

  test('has each module with its types, the bundle, the licence and the manual, and nothing else', async () => {
    const modules = (await readdir(join(WEB, 'src'))).map((file) => file.replace('.ts', ''));

    const expected = [
      'LICENSE',
      'README.md',
      'package.json',
      'dist/relay-web.js',
      ...modules.flatMap((module) => [`dist/${module}.d.ts`, `dist/${module}.js`]),
    ];
    assert.deepEqual(packed.files, expected.sort());
  });

  test("has the repository's licence", async () => {
    assert.equal(await text('LICENSE'), await text('../LICENSE'));
  });

  test('points to no source map, which would not be there', async () => {
    const files = await Promise.all(packed.files.map((path) => readFile(join(installed, path), 'utf8')));

    assert.deepEqual(
      packed.files.filter((_, i) => files[i].includes('sourceMappingURL')),
      [],
    );
  });

  test('is what publint and "Are the types wrong?" expect', async () => {
    await run(bin('publint'), ['run', packed.tarball, '--strict']);
    await run(bin('attw'), [packed.tarball, '--profile', 'esm-only', '--format', 'ascii']);
  });

  test('with an entry that leads nowhere would not be', async () => {
    const broken = await mkdtemp(join(project, 'broken-'));
    await writeFile(
      join(broken, 'package.json'),
      JSON.stringify({ name: 'broken', version: '1.0.0', type: 'module', exports: './dist/away.js' }),
    );

    await assert.rejects(run(bin('publint'), ['run', broken, '--strict', '--pack', 'npm']), /away\.js/);
  });

  test('does nothing on a server: not when it is imported, and not when it is called', async () => {
    const script = `
      import 'react';
      import 'next/navigation.js';
      import assert from 'node:assert/strict';
      const before = Reflect.ownKeys(globalThis);
      const { fetch } = globalThis;
      for (const entry of ${JSON.stringify(ENTRIES)}) await import(entry);
      const relay = await import('@relay-otel/web');
      const called = Object.entries(relay).map(([name, call]) => [name, call({})]);
      assert.deepEqual(Reflect.ownKeys(globalThis), before);
      assert.equal(globalThis.fetch, fetch);
      assert.deepEqual(process.getActiveResourcesInfo().filter((each) => each === 'Timeout'), []);
      console.log(JSON.stringify(called));`;
    await writeFile(join(project, 'server.js'), script);

    const { stdout, stderr } = await run(process.execPath, [join(project, 'server.js')]);

    const said = Object.fromEntries(JSON.parse(stdout).filter(([, value]) => value !== null && value !== undefined));
    assert.deepEqual([said, stderr], [{ flush: {}, init: {}, shutdown: {} }, '']);
  });

  const MODULES = { Bundler: 'ESNext', NodeNext: 'NodeNext' };

  /** Type-check files of the project, as a user's strict compiler does. */
  async function check(files, resolution) {
    const folder = await mkdtemp(join(project, `${resolution}-`));
    await Promise.all(Object.entries(files).map(([name, content]) => writeFile(join(folder, name), content)));
    const compilerOptions = {
      module: MODULES[resolution],
      moduleResolution: resolution,
      target: 'ES2022',
      lib: ['ES2022', 'DOM', 'DOM.Iterable'],
      jsx: 'react-jsx',
      strict: true,
      exactOptionalPropertyTypes: true,
      skipLibCheck: resolution === 'Bundler', // Next.js' own
      noEmit: true,
      types: ['node'],
    };
    await writeFile(join(folder, 'tsconfig.json'), JSON.stringify({ compilerOptions }));
    await run(bin('tsc'), ['-p', folder], { cwd: project });
  }

  for (const resolution of Object.keys(MODULES)) {
    test(`has types for moduleResolution ${resolution}, which know right from wrong`, async () => {
      const right = `
        import { init, recordFormSubmission, type Handle, type Options } from '@relay-otel/web';
        import * as bundle from '@relay-otel/web/bundle';
        import { RelayRoutes } from '@relay-otel/web/next';
        import { RelayWeb, usePageName, type RelayWebProps } from '@relay-otel/web/react';
        import { recordCoreWebVitals, type VitalsOptions } from '@relay-otel/web/vitals';
        const options: Options = { endpoint: '/otel', consent: () => true };
        const handle: Handle = init(options);
        await handle.flush();
        recordFormSubmission('login', 'success');
        // @ts-expect-error: no such status
        recordFormSubmission('login', 'maybe');
        // @ts-expect-error: no such option
        bundle.init({ endpoints: '/otel' });
        const vitals: VitalsOptions = { softNavigations: true };
        recordCoreWebVitals(vitals);
        const props: RelayWebProps = { pageName: 'chat' };
        export function App() { usePageName('chat'); return <><RelayWeb {...props} /><RelayRoutes /></>; }`;
      await check({ 'right.tsx': right }, resolution);
    });
  }

  test('has a manual whose code is right', async () => {
    const blocks = [...(await text('README.md')).matchAll(/^```(tsx?)\n(.*?)^```/gms)];

    await check(Object.fromEntries(blocks.map(([, kind, code], i) => [`block${i}.${kind}`, code])), 'Bundler');

    assert.ok(blocks.length >= 6, `${blocks.length} blocks`);
  });

  test('has a manual that names every function, component and option, and none that is not there', async () => {
    const manual = await text('README.md');
    const modules = await Promise.all(
      ['index', 'react', 'next'].map((name) => import(join(installed, `dist/${name}.js`))),
    );
    const options = [...(await readFile(join(installed, 'dist/init.d.ts'), 'utf8')).matchAll(/readonly (\w+)\?/g)].map(
      ([, name]) => name,
    );
    const there = [...modules.flatMap((module) => Object.keys(module)), ...options];

    const rows = manual.split('\n').filter((line) => line.startsWith('| `'));
    const named = rows.flatMap((row) => [...row.split(' | ')[0].matchAll(/`<?(\w+)/g)].map(([, name]) => name));
    const missing = there.filter((name) => !new RegExp(`\`<?${name}\\b`).test(manual));
    assert.deepEqual([missing, named.filter((name) => !there.includes(name))], [[], []]);
  });
});

// A page of a user's: the generated module, bundled with the package as their own tools would, sends to a collector.
//   node page.mjs ENDPOINT MODULE
import { createRequire } from 'node:module';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';

const [endpoint, generated] = process.argv.slice(2);
const web = join(import.meta.dirname, '../../web');
const { build } = createRequire(join(web, 'package.json'))('esbuild');
const { outputFiles } = await build({
  stdin: {
    contents: `export { init } from '@relay-otel/web'; export * from ${JSON.stringify(generated)};`,
    resolveDir: web,
  },
  bundle: true,
  format: 'esm',
  write: false,
  alias: { '@relay-otel/web/own': join(web, 'dist/own.js'), '@relay-otel/web': join(web, 'dist/index.js') },
});

// As little of a browser as the package asks for; fetch is Node's own, and goes over the network.
const location = new URL('https://shop.example/shelf/tea');
const document = Object.assign(new EventTarget(), {
  baseURI: location.href,
  visibilityState: 'visible',
  readyState: 'complete',
});
const window = new EventTarget();
const browser = {
  document,
  location,
  navigator: { userAgent: 'Firefox', webdriver: false, onLine: true, maxTouchPoints: 0 },
  addEventListener: window.addEventListener.bind(window),
  removeEventListener: window.removeEventListener.bind(window),
};
for (const [name, value] of Object.entries(browser)) Object.defineProperty(globalThis, name, { value, writable: true, configurable: true });

const bundle = `${generated}.mjs`;
await writeFile(bundle, outputFiles[0].contents);
const { init, shelfViewsTotal, basketOpenSeconds } = await import(pathToFileURL(bundle));

const trouble = [];
const handle = init({ endpoint, onError: (sentence) => trouble.push(sentence) });
shelfViewsTotal.add({ shelf: 'tea' }, 3);
shelfViewsTotal.add({ shelf: 'coffee', page_name: '/shelf' });
basketOpenSeconds.record(7, { plan: 'pro' });
await handle.shutdown();
console.log(JSON.stringify(trouble));

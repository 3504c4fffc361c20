// Bundles in; what each weighs out, as JSON: minified, and packed with gzip. All by one call of esbuild.
import { fileURLToPath } from 'node:url';
import { createRequire } from 'node:module';
import { gzipSync } from 'node:zlib';

const web = fileURLToPath(new URL('../../web/', import.meta.url));
const here = fileURLToPath(new URL('.', import.meta.url));
const { build } = createRequire(`${web}package.json`)('esbuild');

const CORE =
  'init, flush, shutdown, setPageName, setUserType, recordPageLoad, recordButtonClick, recordFormSubmission, recordSessionDuration, recordAPIError';
const OTEL = `
  import { metrics } from '@opentelemetry/api';
  import { MeterProvider, PeriodicExportingMetricReader } from '@opentelemetry/sdk-metrics';
  import { AggregationTemporalityPreference, OTLPMetricExporter } from '@opentelemetry/exporter-metrics-otlp-http';
  const exporter = new OTLPMetricExporter({ url: '/otel/v1/metrics', temporalityPreference: AggregationTemporalityPreference.DELTA });
  metrics.setGlobalMeterProvider(new MeterProvider({ readers: [new PeriodicExportingMetricReader({ exporter })] }));
  export const clicks = metrics.getMeter('page').createCounter('click_event_total');`;
const VITALS = `export { onCLS, onFCP, onINP, onLCP, onTTFB } from ${JSON.stringify(`${web}node_modules/web-vitals/dist/web-vitals.js`)};`;
const FARO = `
  import { getWebInstrumentations, initializeFaro } from '@grafana/faro-web-sdk';
  export const faro = initializeFaro({ url: '/faro', app: { name: 'page' }, instrumentations: getWebInstrumentations() });`;

const bundles = {
  'relay-otel, one button': [`export { recordButtonClick } from './dist/index.js';`, web],
  'relay-otel, core': [`export { ${CORE} } from './dist/index.js';`, web],
  'relay-otel, all with web-vitals': [`export * from './dist/index.js';`, web],
  'web-vitals alone': [VITALS, web],
  'OpenTelemetry JS': [OTEL, here],
  'OpenTelemetry JS with web-vitals': [OTEL + VITALS, here],
  'Grafana Faro': [FARO, here],
};

const sizes = {};
for (const [name, [contents, resolveDir]] of Object.entries(bundles)) {
  const { outputFiles } = await build({
    stdin: { contents, resolveDir },
    bundle: true,
    minify: true,
    format: 'esm',
    target: 'es2020',
    legalComments: 'none',
    write: false,
    logLevel: 'error',
  });
  const [{ contents: text }] = outputFiles;
  sizes[name] = { minified: text.length, gzip: gzipSync(text, { level: 9 }).length };
}
console.log(JSON.stringify(sizes));

import { join } from 'node:path';
import type { NextConfig } from 'next';

const config: NextConfig = {
  cacheComponents: true,
  partialPrefetching: true,
  // Same origin: no CORS, no preflight, and no collector that is public.
  rewrites: async () => [{ source: '/otel/:path*', destination: `${process.env.COLLECTOR}/:path*` }],
  // Next.js and React are those of web/.
  turbopack: { root: join(import.meta.dirname, '../..') },
};

export default config;

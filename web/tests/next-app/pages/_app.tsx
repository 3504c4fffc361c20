import { usePageName } from '@relay-otel/web/react';
import type { AppProps } from 'next/app';

export default function App({ Component, pageProps, router }: AppProps) {
  usePageName(router.pathname);
  return <Component {...pageProps} />;
}

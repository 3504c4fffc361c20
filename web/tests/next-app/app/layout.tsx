import 'server-only';

import { RelayRoutes } from '@relay-otel/web/next';
import Link from 'next/link';
import type { ReactNode } from 'react';

const SHOWN = [
  '/',
  '/item/kettle',
  '/item/teapot',
  '/docs/guide/start/install',
  '/cart',
  '/order/blue%20one',
  '/compare/red/red',
  '/users/users',
  '/checkout',
];

export default function Layout({ children }: { children: ReactNode }) {
  return (
    <html lang="en">
      <head>
        <link rel="icon" href="data:," />
      </head>
      <body>
        <nav>
          {SHOWN.map((path) => (
            <Link key={path} href={path}>
              {path}
            </Link>
          ))}
        </nav>
        {children}
        <RelayRoutes />
      </body>
    </html>
  );
}

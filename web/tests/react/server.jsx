/** What react.test.mjs renders as a server does. */

import { recordButtonClick } from '@relay-otel/web';
import { RelayRoutes } from '@relay-otel/web/next';
import { RelayWeb, useButtonClick, useFormSubmission, usePageName } from '@relay-otel/web/react';
import { renderToString } from 'react-dom/server';

function Page() {
  usePageName('/item/[id]');
  useFormSubmission('login')('success');
  useButtonClick('save')();
  recordButtonClick('rendered');
  return <h1>Kettle</h1>;
}

export const html = renderToString(
  <>
    <RelayWeb pageName="/item/[id]" userType="authenticated" />
    <RelayRoutes />
    <Page />
  </>,
);

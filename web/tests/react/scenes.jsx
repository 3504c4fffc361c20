/** What react.test.mjs plays with: `scene(name)` renders into the page, all of it under StrictMode. */

import { captureAll, flush, init, recordButtonClick } from '@relay-otel/web';
import { RelayRoutes } from '@relay-otel/web/next';
import { RelayWeb, useButtonClick, useFormSubmission, usePageName } from '@relay-otel/web/react';
import * as React from 'react';
import { flushSync } from 'react-dom';
import { createRoot } from 'react-dom/client';

import { go } from './navigation.js';

const { StrictMode, useEffect, useState } = React;
const root = createRoot(document.getElementById('root'));
const render = (what) => flushSync(() => root.render(<StrictMode>{what}</StrictMode>));
const options = { allowBots: true, onError: (sentence) => window.said.push(sentence) };

window.said = [];
Object.assign(window, { flush, init, recordButtonClick, options });

/** As an app does it that needs no component for it. */
window.begin = () => {
  init(options);
  captureAll();
};

const SCENES = {
  /** A page as a user would write it. */
  page: () => render(<Page />),
  /** Nothing but names, one inside the other; the last of them may be hidden. */
  names: (names, hidden) => render(tree(names, hidden)),
  /** A page below a router, which may name itself; `routesFirst`: where RelayRoutes stands. */
  route({ base = '', path, params, name, routesFirst }) {
    if (location.pathname !== base + path) history.pushState(null, '', base + path);
    const routes = <RelayRoutes key="routes" />;
    const page = <Arrival key={path} path={path} name={name} />;
    flushSync(() => {
      go(path, params);
      root.render(<StrictMode>{routesFirst ? [routes, page] : [page, routes]}</StrictMode>);
    });
  },
  nothing: () => render(null),
};

/** Once a scene is rendered, and its effects have run. */
window.scene = async (name, ...values) => {
  SCENES[name](...values);
  await new Promise((resolve) => setTimeout(resolve));
};

const identities = new Set();
window.identities = identities;

function Page() {
  const [saved, setSaved] = useState(0);
  const save = useButtonClick('save');
  const submitted = useFormSubmission('login');
  useEffect(() => {
    identities.add(save).add(submitted);
  });
  const onSave = () => {
    save();
    submitted('success');
    setSaved(saved + 1);
  };
  return (
    <>
      <RelayWeb {...options} pageName="/item/[id]" userType="authenticated" />
      <h1>Saved {saved} times</h1>
      <button type="button" data-relay-click="buy">
        Buy
      </button>
      <button type="button" onClick={onSave}>
        Save
      </button>
    </>
  );
}

function Named({ name, children = null }) {
  usePageName(name);
  return children;
}

const tree = ([name, ...rest], hidden) => {
  if (name === undefined) return null;
  const named = <Named name={name}>{rest.length > 0 && tree(rest, hidden)}</Named>;
  return hidden === undefined || rest.length > 0 ? (
    named
  ) : (
    <React.Activity mode={hidden ? 'hidden' : 'visible'}>{named}</React.Activity>
  );
};

function Arrival({ path, name }) {
  usePageName(name);
  useEffect(() => recordButtonClick(`at ${path}`), [path]);
  return <h1>{path}</h1>;
}

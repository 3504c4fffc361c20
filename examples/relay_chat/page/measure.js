// What this page measures: its load, web vitals, clicks on data-relay-click, failing calls, forms and the visit.
// Nothing waits for it, and where it cannot be loaded the page goes on without.

const loaded = import('/web/relay-web.js').then(
  (relay) => {
    relay.setPageName('chat');
    relay.init(); // to /otel, which the app forwards to the collector
    relay.captureAll();
    return relay;
  },
  () => null,
);

/** Let a deed have the package, in order, once it is there. */
export const measure = (deed) => loaded.then((relay) => relay && deed(relay));

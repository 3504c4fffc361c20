import { captureAll, init } from '@relay-otel/web';

init({ allowBots: true });
captureAll();

/** The package as a user gets it: what npm packs, unpacked into node_modules of a folder below web/. */

import { execFile } from 'node:child_process';
import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

const execute = promisify(execFile);

/** Run a program to its end; if that is a bad one, tell what it said. */
export async function run(program, values, options) {
  return execute(program, values, options).catch(({ message, stdout, stderr }) => {
    throw new Error([message, stdout, stderr].join('\n'));
  });
}

export const WEB = fileURLToPath(new URL('..', import.meta.url));
export const bin = (name) => join(WEB, 'node_modules/.bin', name);

/** Pack into a folder; gives the tarball's path and the paths in it. */
export async function pack(folder) {
  const { stdout } = await run('npm', ['pack', '--json', '--pack-destination', folder], { cwd: WEB });
  const [{ filename, files }] = JSON.parse(stdout);
  return { tarball: join(folder, filename), files: files.map(({ path }) => path).sort() };
}

/** Install into a folder's node_modules; its dependencies and peers are those of web/, where Node looks next. */
export async function install(folder) {
  const target = join(folder, 'node_modules/@relay-otel/web');
  const packed = await mkdtemp(join(tmpdir(), 'relay-pack-'));
  const { tarball } = await pack(packed);
  await rm(target, { recursive: true, force: true });
  await mkdir(target, { recursive: true });
  await run('tar', ['xzf', tarball, '--strip-components=1', '-C', target]);
  await rm(packed, { recursive: true });
  return target;
}

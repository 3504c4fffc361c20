'use client';
/** Components and hooks of React. All of them are safe under StrictMode, whose effects run twice. */

import { useCallback, useEffect, useInsertionEffect } from 'react';

import { recordButtonClick } from './clicks.js';
import { recordFormSubmission, type FormStatus } from './forms.js';
import { captureAll } from './all.js';
import { init, type Options } from './init.js';
import { leavePage, namePage, setPageName } from './pages.js';
import { setUserType, type UserType } from './sessions.js';
import type { VitalsOptions } from './vitals.js';

export interface RelayWebProps extends Options, VitalsOptions {
  /** The page's route; its path with ids replaced, unless given. */
  readonly pageName?: string;
  readonly userType?: UserType;
}

/** Begin with these options, and name what is shown. Renders nothing; the options of the first stay. */
export function RelayWeb({ pageName, userType, softNavigations = false, ...options }: RelayWebProps): null {
  usePageName(pageName);
  useEffect(() => {
    if (userType !== undefined) setUserType(userType);
  }, [userType]);
  useEffect(() => {
    init(options);
    captureAll({ softNavigations });
  }, []); // the first call is the one that counts
  return null;
}

/** Name the page while this component is shown: `/item/[id]`, or a router's own pattern. */
export function usePageName(name: string | undefined): void {
  // Before effects, in which a child may record what belongs to the new page.
  usePageNameOf(name, undefined);
}

/** @internal The same, for routers that know the path. */
export function usePageNameOf(name: string | undefined, path: string | undefined): void {
  useInsertionEffect(() => {
    if (name === undefined) return undefined;
    if (path === undefined) setPageName(name);
    else namePage(name, path);
    return () => leavePage(name);
  }, [name, path]);
}

/** `onClick={useButtonClick('send_message')}` */
export function useButtonClick(buttonName: string): () => void {
  return useCallback(() => recordButtonClick(buttonName), [buttonName]);
}

/** `const submitted = useFormSubmission('login'); ... submitted('success');` */
export function useFormSubmission(formName: string): (status: FormStatus) => void {
  return useCallback((status: FormStatus) => recordFormSubmission(formName, status), [formName]);
}

'use client';
/** Components and hooks of React. All of them are safe under StrictMode, whose effects run twice. */

import { useCallback, useEffect } from 'react';
import { captureAll } from './all.js';
import { recordButtonClick } from './clicks.js';
import { type FormStatus, recordFormSubmission } from './forms.js';
import { init, type Options } from './init.js';
import { usePageName } from './names.js';
import { setUserType, type UserType } from './sessions.js';
import type { VitalsOptions } from './vitals.js';

export { usePageName };

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

/** `onClick={useButtonClick('send_message')}` */
export function useButtonClick(buttonName: string): () => void {
  return useCallback(() => recordButtonClick(buttonName), [buttonName]);
}

/** `const submitted = useFormSubmission('login'); ... submitted('success');` */
export function useFormSubmission(formName: string): (status: FormStatus) => void {
  return useCallback((status: FormStatus) => recordFormSubmission(formName, status), [formName]);
}

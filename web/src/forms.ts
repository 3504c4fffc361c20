/** Submissions of named forms: `form_submission_total`. */

import { FORM_SUBMISSION_TOTAL } from './contract.gen.js';
import { add } from './registry.js';
import { safe } from './safe.js';

export type FormStatus = 'success' | 'error';

/** Count a submission, once its end is known. */
export const recordFormSubmission = /* @__PURE__ */ safe((formName: string, status: FormStatus): void =>
  add(FORM_SUBMISSION_TOTAL, 1, [formName, status]),
);

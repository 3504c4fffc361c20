export { Shown as default } from '../../../parts/Shown';

//! For Miri, which runs no foreign code: a small library in Rust under the C names, and what this crate does with it.
//! Handles of it read what they borrow when they are destroyed, so that a wrong order is a use after free. Miri checks
//! pointers, aliasing and leaks on this side of the interface.
//!
//!     cargo +nightly miri test -p duallora --test miri
// SPDX-License-Identifier: Apache-2.0
#![cfg(miri)]

use std::ops::ControlFlow;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;
use std::thread;

use duallora::{
    Bank, Image, Images, Learner, LearnerOptions, Model, ModelOptions, Projections, Projector, Session, SessionOptions,
    Site, Source, Status, Terms,
};

const WIDTH: usize = 2;

/// The library: every function as short as it can be, with the pointers used as the real one uses them.
mod library {
    use std::os::raw::{c_char, c_void};
    use std::ptr;

    use duallora_sys::*;

    use super::WIDTH;

    struct ModelData {
        bytes: *const u8,
        size: usize,
    }

    struct LearnerData {
        model: *const ModelData,
        progress: dlora_progress_fn,
        progress_user: *mut c_void,
        log: dlora_log_fn,
        log_user: *mut c_void,
        tasks: usize,
        name: Vec<u8>,
    }

    struct BankData {
        site: dlora_site,
        projector: *const ProjectorData,
        parameters: Vec<f32>,
        gradients: Vec<f32>,
    }

    struct ProjectorData {
        dim: usize,
    }

    struct SessionData {
        model: *const ModelData,
        bank: *const BankData,
    }

    fn made<T, H>(out: *mut *mut H, data: T) -> dlora_status {
        unsafe { *out = Box::into_raw(Box::new(data)) as *mut H };
        0
    }

    macro_rules! functions {
        ($(fn $name:ident($($argument:ident: $type:ty),*) $(-> $result:ty)? $body:block)*) => {
            $(#[no_mangle]
            unsafe extern "C" fn $name($($argument: $type),*) $(-> $result)? $body)*
        };
    }

    functions! {
        fn dlora_version() -> *const c_char { b"0.9.0\0".as_ptr() as *const c_char }
        fn dlora_last_error() -> *const c_char { b"a sentence\0".as_ptr() as *const c_char }

        fn dlora_model_options_init(_options: *mut dlora_model_options, _size: usize) -> dlora_status { 0 }
        fn dlora_model_info_init(_info: *mut dlora_model_info, _size: usize) -> dlora_status { 0 }
        fn dlora_model_load_memory(out: *mut *mut dlora_model, bytes: *const c_void, size: usize,
                                   _options: *const dlora_model_options) -> dlora_status {
            made(out, ModelData { bytes: bytes as *const u8, size })
        }
        fn dlora_model_get_info(_model: *const dlora_model, info: *mut dlora_model_info) -> dlora_status {
            (*info).embed_dim = WIDTH;
            0
        }
        fn dlora_model_embed(model: *const dlora_model, images: *const dlora_images, out: *mut f32) -> dlora_status {
            let (model, images) = (&*(model as *const ModelData), &*images);
            for i in 0..images.count * WIDTH {
                *out.add(i) = (*model.bytes.add(i % model.size) + *images.u8_) as f32;
            }
            0
        }
        fn dlora_model_destroy(model: *mut dlora_model) {
            let model = Box::from_raw(model as *mut ModelData);
            assert_eq!(*model.bytes.add(model.size - 1), 9);
        }

        fn dlora_learner_options_init(_options: *mut dlora_learner_options, _size: usize) -> dlora_status { 0 }
        fn dlora_task_report_init(_report: *mut dlora_task_report, _size: usize) -> dlora_status { 0 }
        fn dlora_learner_create(out: *mut *mut dlora_learner, model: *const dlora_model,
                                _options: *const dlora_learner_options) -> dlora_status {
            let user = ptr::null_mut();
            let model = model as *const ModelData;
            made(out, LearnerData { model, progress: None, progress_user: user, log: None, log_user: user, tasks: 0,
                                    name: Vec::new() })
        }
        fn dlora_learner_destroy(learner: *mut dlora_learner) {
            let learner = Box::from_raw(learner as *mut LearnerData);
            assert!((*learner.model).size > 0);
        }
        fn dlora_learner_set_progress(learner: *mut dlora_learner, progress: dlora_progress_fn,
                                      user: *mut c_void) -> dlora_status {
            let learner = &mut *(learner as *mut LearnerData);
            (learner.progress, learner.progress_user) = (progress, user);
            0
        }
        fn dlora_learner_set_log(learner: *mut dlora_learner, log: dlora_log_fn, user: *mut c_void) -> dlora_status {
            let learner = &mut *(learner as *mut LearnerData);
            (learner.log, learner.log_user) = (log, user);
            0
        }
        fn dlora_learner_num_tasks(learner: *const dlora_learner) -> usize { (*(learner as *const LearnerData)).tasks }
        fn dlora_learner_set_class_name(learner: *mut dlora_learner, _class: i64, name: *const c_char) -> dlora_status {
            (*(learner as *mut LearnerData)).name = std::ffi::CStr::from_ptr(name).to_bytes_with_nul().to_vec();
            0
        }
        fn dlora_learner_get_class_name(learner: *const dlora_learner, _class: i64) -> *const c_char {
            let name = &(*(learner as *const LearnerData)).name;
            if name.is_empty() { ptr::null() } else { name.as_ptr() as *const c_char }
        }
        fn dlora_learner_learn_source(learner: *mut dlora_learner, source: *const dlora_image_source,
                                      report: *mut dlora_task_report) -> dlora_status {
            let (learner, source) = (&mut *(learner as *mut LearnerData), &*source);
            let mut image: dlora_images = std::mem::zeroed();
            let mut sum = 0;
            for index in 0..source.count {
                if source.read.unwrap()(index, &mut image, source.user) != 0 {
                    return DLORA_ERR_IO as i32;
                }
                for pixel in 0..image.height * image.width * image.channels {
                    sum += *image.u8_.add(pixel) as i64 + *source.labels.add(index);
                }
                if let Some(log) = learner.log {
                    log(1, b"a line\0".as_ptr() as *const c_char, learner.log_user);
                }
                if let Some(progress) = learner.progress {
                    let mut told: dlora_progress = std::mem::zeroed();
                    (told.done, told.total) = (index + 1, source.count);
                    if progress(&told, learner.progress_user) != 0 {
                        return DLORA_ERR_CANCELLED as i32;
                    }
                }
            }
            learner.tasks += 1;
            (*report).task = sum;
            0
        }
        fn dlora_learner_predict(learner: *const dlora_learner, images: *const dlora_images,
                                 out: *mut dlora_prediction, _scores: *mut f32) -> dlora_status {
            for i in 0..(*images).count {
                (*out.add(i)).class_id = (*(learner as *const LearnerData)).tasks as i64 + *(*images).u8_ as i64;
            }
            0
        }

        fn dlora_projector_create(out: *mut *mut dlora_projector, dim: usize,
                                  _options: *const dlora_projector_options) -> dlora_status {
            made(out, ProjectorData { dim })
        }
        fn dlora_projector_dim(projector: *const dlora_projector) -> usize { (*(projector as *const ProjectorData)).dim }
        fn dlora_projector_destroy(projector: *mut dlora_projector) {
            drop(Box::from_raw(projector as *mut ProjectorData));
        }

        fn dlora_bank_options_init(_options: *mut dlora_bank_options, _size: usize) -> dlora_status { 0 }
        fn dlora_bank_create(out: *mut *mut dlora_bank, sites: *const dlora_site, _count: usize,
                             _options: *const dlora_bank_options) -> dlora_status {
            made(out, BankData { site: *sites, projector: ptr::null(), parameters: vec![1.0; 4], gradients: vec![0.0; 4] })
        }
        fn dlora_bank_get_site(bank: *const dlora_bank, _site: usize, out: *mut dlora_site) -> dlora_status {
            *out = (*(bank as *const BankData)).site;
            0
        }
        fn dlora_bank_num_tasks(_bank: *const dlora_bank) -> usize { 0 }
        fn dlora_bank_set_orthogonal(bank: *mut dlora_bank, _site: usize, a: *const f32, rank: usize,
                                     projector: *const dlora_projector) -> dlora_status {
            let bank = &mut *(bank as *mut BankData);
            bank.projector = projector as *const ProjectorData;
            bank.parameters[0] = *a.add(rank * bank.site.input_dim - 1);
            0
        }
        fn dlora_bank_get_parameters(bank: *mut dlora_bank, parameters: *mut *mut f32, gradients: *mut *mut f32,
                                     count: *mut usize) -> dlora_status {
            let bank = &mut *(bank as *mut BankData);
            *parameters = bank.parameters.as_mut_ptr();
            *gradients = bank.gradients.as_mut_ptr();
            *count = bank.parameters.len();
            0
        }
        fn dlora_bank_step(bank: *mut dlora_bank, rate: f32) -> dlora_status {
            let bank = &mut *(bank as *mut BankData);
            for (parameter, gradient) in bank.parameters.iter_mut().zip(&mut bank.gradients) {
                *parameter -= rate * *gradient * (*bank.projector).dim as f32;
                *gradient = 0.0;
            }
            0
        }
        fn dlora_bank_commit_task(bank: *mut dlora_bank) -> dlora_status {
            (*(bank as *mut BankData)).projector = ptr::null();
            0
        }
        fn dlora_bank_destroy(bank: *mut dlora_bank) {
            let bank = Box::from_raw(bank as *mut BankData);
            assert!(bank.projector.is_null() || (*bank.projector).dim > 0);
        }

        fn dlora_session_options_init(_options: *mut dlora_session_options, _size: usize) -> dlora_status { 0 }
        fn dlora_session_create(out: *mut *mut dlora_session, model: *const dlora_model, bank: *const dlora_bank,
                                _options: *const dlora_session_options) -> dlora_status {
            made(out, SessionData { model: model as *const ModelData, bank: bank as *const BankData })
        }
        fn dlora_session_forward(session: *mut dlora_session, images: *const dlora_images, _terms: i32,
                                 _routing: *const f32, features: *mut f32) -> dlora_status {
            let session = &*(session as *mut SessionData);
            let bank = &*session.bank;
            for i in 0..(*images).count * WIDTH {
                *features.add(i) = bank.parameters[1] + *(*session.model).bytes as f32;
            }
            0
        }
        fn dlora_session_backward(_session: *mut dlora_session, bank: *mut dlora_bank, dy: *const f32) -> dlora_status {
            let bank = &mut *(bank as *mut BankData);
            bank.gradients[1] += *dy;
            0
        }
        fn dlora_session_destroy(session: *mut dlora_session) {
            let session = Box::from_raw(session as *mut SessionData);
            assert!((*session.model).size > 0 && (session.bank.is_null() || (*session.bank).site.input_dim > 0));
        }
    }
}

fn model() -> Model {
    Model::from_bytes(vec![1, 2, 9], &ModelOptions::new()).unwrap()
}

fn image(number: usize) -> Image {
    Image::rgb8(vec![number as u8; 6], 1, 2).unwrap()
}

#[test]
fn models_share_their_bytes() {
    let model = model();
    let clone = model.clone();
    let image = image(3);
    let moved = thread::spawn(move || clone.embed(&image.view()).unwrap());
    assert_eq!(moved.join().unwrap().as_slice(), [4.0, 5.0]);
    static BYTES: [u8; 2] = [1, 9];
    drop(Model::from_bytes(&BYTES[..], &ModelOptions::new()).unwrap());
    drop(model);
}

#[test]
fn closures_are_called_while_the_learner_moves_about() {
    let mut learner = Learner::with_options(&model(), &LearnerOptions::new()).unwrap();
    let count = Arc::new(AtomicUsize::new(0));
    let (in_progress, in_log) = (count.clone(), count.clone());
    learner.set_progress(move |_| {
        in_progress.fetch_add(1, Ordering::Relaxed);
        ControlFlow::Continue(())
    });
    learner.set_log(move |_, line| {
        in_log.fetch_add(line.len(), Ordering::Relaxed);
    });
    let mut boxed = Box::new(learner);
    let labels = [5, 6, 7];
    let report = boxed.learn_source(&mut Source::new(&labels, image)).unwrap();
    assert_eq!(report.task, 6 * (5 + 6 + 7) + 6 * (1 + 2));
    assert_eq!(count.load(Ordering::Relaxed), 3 * (1 + 6));
    boxed.set_class_name(5, "five").unwrap();
    let mut learner = *boxed;
    assert_eq!(learner.class_name(5).as_deref(), Some("five"));
    learner.clear_log();
    learner
        .set_progress(|progress| if progress.done == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) });
    let pixels = [8; 18];
    let mut source = Source::of(Images::rgb8(&pixels, 3, 1, 2).unwrap(), &labels).unwrap();
    assert_eq!(learner.learn_source(&mut source).unwrap_err().status(), Status::Cancelled);
    learner.clear_progress();
    learner.learn_source(&mut source).unwrap();
    assert_eq!(Arc::strong_count(&count), 1);
    assert_eq!(learner.num_tasks(), 2);
}

#[test]
fn panics_pass_by_the_library() {
    let mut learner = Learner::with_options(&model(), &LearnerOptions::new()).unwrap();
    let labels = [1, 2];
    let panics = |learner: &mut Learner, source: &mut Source<'_>| {
        let payload = catch_unwind(AssertUnwindSafe(|| drop(learner.learn_source(source)))).unwrap_err();
        *payload.downcast_ref::<&str>().unwrap()
    };
    let mut failing = Source::new(&labels, |i| if i == 1 { panic!("source") } else { image(i) });
    assert_eq!(panics(&mut learner, &mut failing), "source");
    let mut source = Source::new(&labels, image);
    learner.set_log(|_, _| panic!("log"));
    assert_eq!(panics(&mut learner, &mut source), "log");
    learner.clear_log();
    learner.set_progress(|_| panic!("progress"));
    assert_eq!(panics(&mut learner, &mut source), "progress");
    learner.clear_progress();
    let error = learner.learn_source(&mut Source::new(&labels, |_| Err::<Image, _>("no film"))).unwrap_err();
    assert_eq!(error.to_string(), "a sentence: no film");
    learner.learn_source(&mut source).unwrap();
}

#[test]
fn threads_predict_on_one_learner() {
    let learner = Learner::with_options(&model(), &LearnerOptions::new()).unwrap();
    thread::scope(|scope| {
        for i in 0..3 {
            let learner = &learner;
            scope.spawn(move || assert_eq!(learner.predict_one(&image(i).view()).unwrap().class, i as i64));
        }
    });
    let found: Vec<i64> = learner.predictions((0..5).map(|_| image(4)), 2).map(|p| p.unwrap().class).collect();
    assert_eq!(found, [4; 5]);
}

#[test]
fn banks_keep_projectors_and_sessions_keep_banks() {
    let site = Site { input_dim: WIDTH, output_dim: WIDTH, block: 0, projection: Projections::KEY };
    let mut session = {
        let model = model();
        Session::new(&model, Bank::new(&[site]).unwrap(), &SessionOptions::new()).unwrap()
    };
    let projector = Arc::new(Projector::new(WIDTH).unwrap());
    session.bank_mut().unwrap().set_orthogonal(0, &[1.0, 2.0], Some(projector)).unwrap();
    let image = image(1);
    for _ in 0..2 {
        let features = session.forward(&image.view(), Terms::ORTHOGONAL, None).unwrap();
        session.backward(&features).unwrap();
        let (parameters, gradients) = session.bank_mut().unwrap().parameters().unwrap();
        parameters[2] = gradients[1];
        session.bank_mut().unwrap().step(0.1).unwrap();
    }
    // The bank that the session reads lives on where it was taken out, and its projector with it.
    let taken = std::mem::replace(session.bank_mut().unwrap(), Bank::new(&[site]).unwrap());
    drop(taken);
    assert_eq!(session.forward(&image.view(), Terms::MERGED, None).unwrap_err().status(), Status::Mismatch);
    let bank = session.into_bank().unwrap();
    let first = Session::new(&model(), bank.clone(), &SessionOptions::new()).unwrap();
    drop(bank);
    drop(first);
}

//! Arrays of the crate ndarray and images of the crate image.
// SPDX-License-Identifier: Apache-2.0
#![cfg(any(feature = "ndarray", feature = "image"))]

mod support;

#[cfg(feature = "ndarray")]
mod arrays {
    use duallora::{Images, Predictor, Projector, Status};
    use ndarray::{array, s, Array2, Array3, Array4};

    use crate::support::model;

    #[test]
    fn arrays_of_features_go_in_and_out() {
        let mut predictor = Predictor::new(2).unwrap();
        let features = array![[0.0f32, 0.1], [0.1, 0.0], [5.0, 5.1], [5.1, 5.0]];
        predictor.observe(&features, &[0, 0, 1, 1]).unwrap();
        predictor.commit_task().unwrap();
        assert_eq!(predictor.predict(&features.slice(s![2.., ..])).unwrap()[0].class, 1);
        let means: Array2<f64> = predictor.components().unwrap().means.into();
        assert_eq!(means.shape(), [2, 2]);
        assert!((means[[1, 0]] - 5.05).abs() < 1e-6);

        let error = predictor.predict(&features.t()).unwrap_err();
        assert_eq!(error.status(), Status::Argument);
        let wide = Array2::<f32>::zeros((2, 4));
        let error = predictor.predict(&wide).unwrap_err();
        assert!(error.message().contains("4 columns, expected 2"), "{}", error);
        let every_other = wide.slice(s![.., ..;2]);
        let error = predictor.predict(&every_other).unwrap_err();
        assert!(error.message().contains("not contiguous"), "{}", error);
        predictor.predict(&every_other.as_standard_layout()).unwrap();
        let mut projector = Projector::new(2).unwrap();
        projector.observe(&features).unwrap();
        assert_eq!(projector.unused_directions(1).unwrap().rows(), 1);
    }

    #[test]
    fn arrays_of_images_go_in() {
        let model = model();
        let side = model.info().image_size;
        let bytes = Array4::from_shape_fn((2, 10, 12, 3), |(n, y, x, c)| (n * 50 + y * x + c) as u8);
        let features = model.embed(&Images::try_from(bytes.view()).unwrap()).unwrap();
        let slice = Images::rgb8(bytes.as_slice().unwrap(), 2, 10, 12).unwrap();
        assert_eq!(features, model.embed(&slice).unwrap());
        let gray = Array3::<u8>::zeros((2, 10, 12));
        assert_eq!(Images::try_from(gray.view()).unwrap().size(), (10, 12));
        let floats = Array4::<f32>::zeros((1, 3, side, side));
        assert_eq!(model.embed(&Images::try_from(floats.view()).unwrap()).unwrap().rows(), 1);

        for (images, part) in [
            (Images::try_from(bytes.slice(s![.., .., .., ..2])), "2 channels"),
            (Images::try_from(bytes.slice(s![.., ..;2, .., ..])), "not contiguous"),
            (Images::try_from(bytes.slice(s![..0, .., .., ..])), "at least 1"),
        ] {
            let error = images.unwrap_err();
            assert!(error.message().contains(part), "{}", error);
        }
        let channels_last = Array4::<f32>::zeros((1, side, side, 3));
        assert!(Images::try_from(channels_last.view()).is_err());
    }
}

#[cfg(feature = "image")]
mod pictures {
    use duallora::{Image, Learner, Source};
    use image::{DynamicImage, GrayImage, RgbImage, RgbaImage};

    use crate::support::{model, options, picture, SIDE};

    #[test]
    fn images_of_any_kind_become_rgb_or_gray() {
        let gray = GrayImage::from_fn(4, 3, |x, y| image::Luma([(10 * x + y) as u8]));
        let expected = Image::gray8(gray.as_raw().clone(), 3, 4).unwrap();
        assert_eq!(Image::from(gray.clone()), expected);
        assert_eq!(Image::from(DynamicImage::from(gray)), expected);
        let rgba = RgbaImage::from_pixel(2, 5, image::Rgba([1, 2, 3, 77]));
        let expected = Image::rgb8([1, 2, 3].repeat(10), 5, 2).unwrap();
        assert_eq!(Image::from(DynamicImage::from(rgba)), expected);
        assert_eq!(Image::from(RgbImage::from_pixel(2, 5, image::Rgb([1, 2, 3]))), expected);
    }

    #[test]
    fn a_source_may_return_them() {
        let mut learner = Learner::with_options(&model(), &options()).unwrap();
        let side = SIDE as u32;
        let labels: Vec<i64> = (0..16).map(|i| i % 2).collect();
        let read = |i: usize| RgbImage::from_raw(side, side, picture(i as i64 % 2, i)).ok_or("another size");
        learner.learn_source(&mut Source::new(&labels, read)).unwrap();
        let predictions: Vec<_> = learner.predictions((0..4).map(read), 2).map(Result::unwrap).collect();
        assert_eq!(predictions.len(), 4);
    }
}
